"""Which arithmetic a processor does faster: without instructions for bfloat16 that takes many times as long as fp32."""

from __future__ import annotations

import logging
import time
from typing import Literal

import torch

from sapiens2.engine.config import EngineConfig

_log = logging.getLogger(__name__)

SLOWER = 1.5
"""How many times slower bfloat16 must be to be worth a word."""
_SIDE = 384
_REPEATS = 8
"""The first makes the kernels; what else runs slows some of the others."""


def bf16_over_fp32() -> float:
    """Time of a matrix product in bfloat16 over its time in fp32, forward and backward, on this CPU.

    Draws nothing: the random state of a training stays as it is.
    """
    numbers = torch.linspace(-1, 1, _SIDE * _SIDE).reshape(_SIDE, _SIDE)

    def once(narrow: bool) -> float:
        weight = numbers.clone().requires_grad_()
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            out = (numbers @ weight).sum()
        out.backward()
        return time.perf_counter() - began

    with torch.enable_grad():
        taken = [(once(True), once(False)) for _ in range(_REPEATS)]
    return min(narrow for narrow, _ in taken) / min(wide for _, wide in taken)


def faster() -> Literal["fp32", "bf16"]:
    """The faster of the two on this CPU."""
    return "bf16" if bf16_over_fp32() < 1 else "fp32"


def warn_of_slow_bf16(config: EngineConfig, device: torch.device) -> None:
    """A warning where training will be slow for want of bfloat16 instructions; nothing is changed by it."""
    if device.type != "cpu" or config.precision != "bf16":
        return
    ratio = bf16_over_fp32()
    if ratio > SLOWER:
        _log.warning(
            "bfloat16 takes %.1f times as long as fp32 on this processor: engine.precision=fp32 (with residual=fp32) "
            "trains the same network faster here",
            ratio,
        )
