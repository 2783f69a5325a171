"""Elastic training: a node is lost, the run goes on with the workers that are left, from its newest saved state."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "sapiens2" / "engine"))  # the toy objective

from toy_run import toy_config

from sapiens2 import launch as launcher
from sapiens2.engine.control import Control
from sapiens2.launch import launch

TESTS = Path(__file__).parents[1]


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    """A Ray of two nodes with a CPU each, on loopback; the second can be taken away."""
    before = dict(os.environ)
    launcher.prepare_environment(starts=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), str(TESTS / "sapiens2" / "engine")])
    os.environ.pop("RAY_ADDRESS", None)
    import ray
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=options | {"include_dashboard": False})
    second = cluster.add_node(**options)
    ray.init(address=cluster.address, log_to_driver=False)
    yield lambda: cluster.remove_node(second, allow_graceful=False)
    ray.shutdown()
    cluster.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.timeout(300)
def test_a_run_goes_on_with_the_workers_that_are_left(tmp_path: Path, two_nodes: Any) -> None:
    state = tmp_path / "state"

    def lose() -> None:
        while not (state / "step_5" / "complete.json").exists():
            time.sleep(0.02)
        two_nodes()

    losing = threading.Thread(target=lose, daemon=True)
    losing.start()
    places = {"storage": str(tmp_path / "ray"), "out": str(tmp_path / "out"), "state": str(state)}
    options = {"workers": 2, "min_workers": 1, "slow_s": 0.3, "control": Control(shows=False)}
    metrics = launch("toy_target:run", toy_config(), **options, **places)
    losing.join()
    assert metrics["ranks"] == 1 and metrics["resumed_from"] >= 5
    history = [json.loads(line)["step"] for line in (tmp_path / "out" / "history.jsonl").read_text().splitlines()]
    assert history == sorted(set(history)) and history[-1] == 20
