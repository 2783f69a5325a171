"""The fused GPU kernels: the same numbers as their slow references (interpreted, on a CPU), and who takes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sapiens2.model import kernels

pytestmark = pytest.mark.skipif(kernels.triton is None, reason="needs Triton, which this platform's PyTorch has not")


def test_kernels_equal_their_references() -> None:
    script = Path(__file__).with_name("kernels_interpreted.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 18
    for case, difference in found.items():
        # In bfloat16 the reference rounds after every operation, the kernel once: two or three places in 256.
        assert difference < (1e-6 if "float32" in case else 1.2e-2), case


def test_neither_cpus_nor_fake_tensors_nor_training_take_them() -> None:
    """What predicts memory runs the model on fake tensors: that must not decide that Triton does not work."""
    with torch.no_grad():
        assert not kernels.usable(torch.zeros(2))
        with FakeTensorMode():
            assert not kernels.usable(torch.empty(2, device="cuda"))
    assert kernels._works.cache_info().currsize == 0
