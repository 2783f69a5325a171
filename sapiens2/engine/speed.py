"""How fast a run is against what its devices can do."""

from __future__ import annotations

from typing import Any

import torch

from sapiens2.engine.world import World

# Dense bfloat16 of the data sheets, FLOP/s; the first name that the device's holds counts.
PEAKS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}


def peak_flops(name: str, precision: str) -> float | None:
    """FLOP/s of a GPU by its name; None where the table has none: other devices, and arithmetic other than bf16."""
    if precision != "bf16":
        return None
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def speed(world: World, precision: str, images_per_s: float, flops_per_image: float) -> dict[str, Any]:
    """Columns of a row of history: `images_per_s`, and on a GPU `mfu` and `memory_gib`, the most since the last call.

    `mfu` is the share of the peak of all ranks' devices that the model's own arithmetic takes, work that is done twice
    to save memory not counted. Left out where no peak is known.
    """
    told: dict[str, Any] = {"images_per_s": images_per_s}
    if world.device.type != "cuda":
        return told
    peak = peak_flops(torch.cuda.get_device_name(world.device), precision)
    if peak is not None and flops_per_image:
        told["mfu"] = images_per_s * flops_per_image / (peak * world.size)
    told["memory_gib"] = torch.cuda.max_memory_allocated(world.device) / 2**30
    torch.cuda.reset_peak_memory_stats(world.device)
    return told
