"""Which attention kernel is fastest at the shapes of a pretraining step: flash, cuDNN and memory-efficient, on a GPU.

    python benchmarks/attention_kernels.py

bfloat16, forward alone as the teacher runs it and forward with backward as the student does, with shared key heads
where the size has them. Prints TFLOP/s by kernel; the last line is one JSON object.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
# name: sequences, query heads, key heads, tokens, channels of a head
SHAPES = {
    "0.1b student": (144, 12, 12, 777, 64),
    "1b student": (48, 24, 12, 777, 64),
    "1b teacher": (16, 24, 12, 3081, 64),
    "5b student": (24, 32, 16, 777, 80),
    "5b teacher": (8, 32, 16, 3081, 80),
}


def seconds(work: Callable[[], object]) -> float:
    """Median of ten calls after three."""
    times = []
    for turn in range(13):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        if turn >= 3:
            times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def measure(kernel: SDPBackend | None, shape: tuple[int, ...], backward: bool) -> float | None:
    """TFLOP/s, counting 2 per multiply-accumulate and the backward pass as two and a half forward ones."""
    batch, heads, kv_heads, tokens, width = shape

    def made(count: int) -> torch.Tensor:  # [B, n, heads, width] in memory, as a linear map leaves it
        x = torch.randn(batch, tokens, count, width, device="cuda", dtype=torch.bfloat16)
        return x.transpose(1, 2).requires_grad_(backward)

    q, k, v = made(heads), made(kv_heads), made(kv_heads)
    ask = torch.randn_like(q)

    def once() -> None:
        out = F.scaled_dot_product_attention(q, k, v, enable_gqa=heads != kv_heads)
        if backward:
            torch.autograd.grad(out, (q, k, v), ask)

    flops = 4 * batch * heads * tokens**2 * width * (3.5 if backward else 1)
    try:
        if kernel is None:
            return flops / seconds(once) / 1e12
        with sdpa_kernel(kernel):
            return flops / seconds(once) / 1e12
    except RuntimeError:  # a kernel that does not take the shape
        return None


def main() -> None:
    found: dict[str, dict[str, float | None]] = {}
    print("TFLOP/s".ljust(34) + "".join(name.rjust(11) for name in ("default", *KERNELS)))
    for name, shape in SHAPES.items():
        for backward in (False, True):
            told = f"{name}, {'both ways' if backward else 'forward'}"
            row = {"default": measure(None, shape, backward)}
            row |= {kernel: measure(backend, shape, backward) for kernel, backend in KERNELS.items()}
            found[told] = {kernel: None if rate is None else round(rate, 1) for kernel, rate in row.items()}
            cells = ("-" if rate is None else f"{rate:.0f}" for rate in row.values())
            print(told.ljust(34) + "".join(cell.rjust(11) for cell in cells), flush=True)
    print(json.dumps({"benchmark": "attention_kernels", "device": torch.cuda.get_device_name(), "tflops": found}))


if __name__ == "__main__":
    main()
