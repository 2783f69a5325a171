"""How much memory a run may take: free memory of the GPU, or what this machine or its container has left."""

from __future__ import annotations

import os
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60  # cgroup v1 writes a huge number where there is no limit


def available_bytes(device: torch.device) -> int | None:
    """Bytes that a process may still allocate on a device; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    known = [left for left in (_machine(), _container()) if left is not None]
    return min(known) // local_ranks if known else None


def _machine(path: Path = Path("/proc/meminfo")) -> int | None:
    """What Linux counts as available, or all physical memory where it does not."""
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not every system has these names
        return None


def _container(root: Path = CGROUP) -> int | None:
    """Limit less use of this process's control group, version 2 or 1; None without a limit. Page cache can be freed."""
    for limit, used, cache in (
        (root / "memory.max", root / "memory.current", "inactive_file"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        if not (limit.is_file() and used.is_file()):
            continue
        text = limit.read_text().strip()
        if text == "max" or int(text) > UNLIMITED:
            return None
        return int(text) - int(used.read_text()) + _statistic(limit.with_name("memory.stat"), cache)
    return None


def _statistic(path: Path, name: str) -> int:
    """One number of a memory.stat file, 0 when it is not there."""
    rows = path.read_text().splitlines() if path.is_file() else []
    return next((int(row.split()[1]) for row in rows if row.split()[0] == name), 0)
