"""The short form of benchmarks/learning.py on the pool's photographs: about two minutes of one core."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "learning.py"


def test_pretraining_learns_from_photographs(acceptance: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("learning", BENCHMARK)
    assert spec is not None and spec.loader is not None
    learning = importlib.util.module_from_spec(spec)
    sys.modules["learning"] = learning  # so that its annotations resolve
    spec.loader.exec_module(learning)
    files = learning.shards(acceptance / "data" / "pool", tmp_path)
    told = learning.prove(files, learning.config(150), tmp_path)
    print()
    for name, value in told.items():
        print(f"  {name:34} {value}")
    assert told["held_out_pictures"] > 50 and told["training_pictures"] > 250
    # Never trained on, no near copy of what was; 0.995 for answering each patch's mean. The full form is held to 0.75.
    assert told["held_out_mae"] < 0.92 and np.isfinite(told["blur_fill"])
    assert told["held_out_mae_interval"][1] < 0.96
    assert told["mutual_information_last_fifth"] > 0.05
    assert told["loudest_over_next"] < learning.DROWNED
