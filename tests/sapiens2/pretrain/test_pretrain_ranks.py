"""KoLeo groups whose images lie on several ranks count as they do on one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import koleo_ranks
import pytest

HERE = Path(__file__).parent
RANKS = 3  # four images each


@pytest.fixture(scope="module")
def told() -> list[dict[str, Any]]:
    """What each rank prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(RANKS), "GLOO_SOCKET_IFNAME": "lo"}
    shared |= {"PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "koleo_ranks.py")]
    started = [
        subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(RANKS)
    ]
    return [json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in started]


@pytest.mark.parametrize(("group", "spans"), [(2, False), (4, False), (3, True), (6, True), (12, True)])
def test_the_loss_and_its_gradient_are_those_of_one_process(
    told: list[dict[str, Any]], group: int, spans: bool
) -> None:
    loss, gradient, _ = koleo_ranks.loss_and_gradient(group)
    size = sum(value**2 for value in gradient) ** 0.5
    assert size > 0.01
    for rank in told:
        own_loss, own_gradient, collectives = rank[str(group)]
        assert own_loss == pytest.approx(loss, rel=1e-6)
        apart = sum((ours - theirs) ** 2 for ours, theirs in zip(own_gradient, gradient, strict=True)) ** 0.5
        assert apart < 1e-6 * size
        assert collectives == int(spans)  # nothing travels where each rank holds whole groups


def test_images_that_do_not_fill_groups_are_refused(told: list[dict[str, Any]]) -> None:
    assert all("12 images do not divide into KoLeo groups of 5" in rank["refused"] for rank in told)
