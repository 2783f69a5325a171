"""Memory that is freed and allocated again comes from the process and not, page by page, from the system."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy_run import ToyObjective, ToySource, toy_config

from sapiens2.engine import loop

PROGRAM = """
import ctypes, json, resource, sys, torch
from sapiens2.engine.allocator import keep_freed_memory
if not hasattr(ctypes.CDLL(None), "mallinfo2") or (sys.argv[1] == "kept" and not keep_freed_memory()):
    print("null")
    raise SystemExit
class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
before = mallinfo().hblkhd
large = torch.ones(6 << 20)  # 24 MiB
mapped = mallinfo().hblkhd - before
del large
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    return [torch.ones(1 << 18) for _ in range(64)]  # 1 MiB each
for number in range(16):
    if number == 8:  # by then the heap has found its size
        start = faults()
    use()
print(json.dumps([mapped, faults() - start]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is of the GNU C library")
def test_freed_memory_is_used_again() -> None:
    def told(how: str) -> list[int] | None:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        found: list[int] | None = json.loads(done.stdout)
        return found

    kept, left = told("kept"), told("left to itself")
    if kept is None or left is None:
        pytest.skip("this C library has no mallopt, or is older than mallinfo2")
    assert kept[0] == 0 and left[0] >= 24 << 20  # bytes that are a mapping of their own, gone when freed
    assert kept[1] < 1000  # of 131,072 pages, which by itself the heap gives back unless something lies behind them


def test_training_on_a_cpu_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(loop, "keep_freed_memory", lambda: asked.append(True))
    places = {name: str(tmp_path / name) for name in ("out", "state")}
    loop.train(ToyObjective(), ToySource(), toy_config(steps=4), **places)
    assert asked == [True]
