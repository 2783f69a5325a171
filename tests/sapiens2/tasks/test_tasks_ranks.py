"""Fine-tuning on two ranks, on one, and in micro-batches: one batch, one loss."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import rank_run
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.getbasetemp() / "scenes"))


def two_ranks(task: str, folder: Path, lora_rank: int) -> list[float]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "rank_run.py"), task, str(folder), str(lora_rank)]
    started = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(HERE.parents[2]), "RANK": str(r), "LOCAL_RANK": str(r)} | shared,
        )
        for r in range(2)
    ]
    told = [process.communicate(timeout=300) for process in started]
    assert all(process.returncode == 0 for process in started), told[0][1] + told[1][1]
    losses: list[float] = json.loads(told[0][0].splitlines()[-1])["losses"]
    return losses


@pytest.mark.parametrize(("task", "lora_rank"), [("pointmap", 0), ("normal", 2)])
def test_two_ranks_and_micro_batches_equal_one_process(task: str, lora_rank: int, tmp_path: Path) -> None:
    alone = rank_run.run(task, str(tmp_path / "one"), lora_rank=lora_rank)
    cut = rank_run.run(task, str(tmp_path / "cut"), micro_batches=2, lora_rank=lora_rank)
    both = two_ranks(task, tmp_path / "two", lora_rank)
    assert cut == pytest.approx(alone, rel=1e-5) and both == pytest.approx(alone, rel=1e-5)
    assert alone[-1] != alone[0]
    states = [load_file(tmp_path / name / "out" / "model.safetensors") for name in ("one", "two")]
    assert states[0].keys() == states[1].keys() and not any("lora" in name for name in states[0])
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name].float(), tensor.float(), rtol=1e-3, atol=2e-4)
