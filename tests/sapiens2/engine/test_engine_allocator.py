"""Memory that is freed and allocated again comes from the process and not, page by page, from the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from sapiens2.engine.allocator import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    print("no glibc")
    raise SystemExit
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    return [torch.ones(2 << 20) for _ in range(4)]  # 8 MiB each
for _ in range(8):  # until the heap has found its size
    use()
before = faults()
for _ in range(10):
    use()
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is of the GNU C library")
def test_freed_memory_is_used_again() -> None:
    def told(how: str) -> str:
        done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    kept = told("kept")
    if kept == "no glibc":
        pytest.skip("this C library has no mallopt")
    # 320 MiB of 4 KiB pages are 82,000 faults; huge pages make them fewer, but not none.
    assert int(kept) < int(told("given back")) / 4
