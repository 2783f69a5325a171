"""Fine-tuning on two ranks, on one, and in micro-batches: one batch, one loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rank_run
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent


CASES = [("pointmap", 0, ""), ("normal", 2, ""), ("albedo", 2, "timm:eva02_tiny_patch14_224:random")]


@pytest.fixture(scope="module", autouse=True)
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.getbasetemp() / "scenes"))
        yield


@pytest.fixture(scope="module")
def two_ranks(scenes: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[float]]]:
    """Folder and losses of every task's run on two ranks, the same two processes for all."""
    base = tmp_path_factory.mktemp("two")
    order = [(str(base / f"port-{task}"), task, str(base / task), *more) for task, *more in CASES]
    shared = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE / "rank_run.py"), json.dumps(order)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(HERE.parents[2]), "RANK": str(r), "LOCAL_RANK": str(r)} | shared,
        )
        for r in range(2)
    ]
    told = [process.communicate(timeout=300) for process in started]
    assert all(process.returncode == 0 for process in started), told[0][1] + told[1][1]
    losses = json.loads(told[0][0].splitlines()[-1])
    return {task: (base / task, found) for (task, *_), found in zip(CASES, losses, strict=True)}


@pytest.mark.parametrize(("task", "lora_rank", "backbone"), CASES)
def test_two_ranks_and_micro_batches_equal_one_process(
    task: str, lora_rank: int, backbone: str, two_ranks: dict[str, tuple[Path, list[float]]], tmp_path: Path
) -> None:
    alone = rank_run.run(task, str(tmp_path / "one"), lora_rank=lora_rank, backbone=backbone)
    cut = rank_run.run(task, str(tmp_path / "cut"), micro_batches=2, lora_rank=lora_rank, backbone=backbone)
    folder, both = two_ranks[task]
    assert cut == pytest.approx(alone, rel=1e-5) and both == pytest.approx(alone, rel=1e-5)
    assert alone[-1] != alone[0]
    states = [load_file(where / "out" / "model.safetensors") for where in (tmp_path / "one", folder)]
    assert states[0].keys() == states[1].keys() and not any("lora" in name for name in states[0])
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name].float(), tensor.float(), rtol=1e-3, atol=2e-4)
