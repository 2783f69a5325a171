"""Holds the Triton kernels to their slow references, in a process where TRITON_INTERPRET=1 runs them on a CPU.

Prints one JSON object: the largest difference of each case, relative to the largest value of the reference.
"""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F

from sapiens2.model import kernels
from sapiens2.model.block import Norm
from sapiens2.model.rope import RopeRows, compute_rows, rotate


def norm_rotate(heads: int, width: int, dtype: torch.dtype, own_places: bool) -> float:
    table = compute_rows(3, 5, width, dtype, "cpu")
    kept = torch.stack([torch.randperm(15)[:11] for _ in range(2)])
    rows = (table.gather(kept) if own_places else RopeRows(table.cos[:, :11], table.sin[:, :11])).with_prefix(2)
    norm = Norm(width, eps=1e-6)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    x = torch.randn(2, 13, heads, width).to(dtype)
    norm.to(dtype)
    with torch.no_grad():
        reference = rotate(norm(x).transpose(1, 2), rows).transpose(1, 2)
        ours = [kernels.norm_rotate(x, norm.weight, 1e-6, r) for r in (rows, rows.expand(2))]
        scattered = x.transpose(1, 2).contiguous().transpose(1, 2)  # the same numbers, elsewhere in memory
        ours.append(kernels.norm_rotate(scattered, norm.weight, 1e-6, rows))
    return max(relative(out, reference) for out in ours)


def silu_product(width: int, dtype: torch.dtype) -> float:
    x = torch.randn(3, 7, 2 * width).to(dtype)
    gate, value = x.chunk(2, -1)
    return relative(kernels.silu_product(x), F.silu(gate) * value)


def relative(ours: torch.Tensor, reference: torch.Tensor) -> float:
    assert ours.dtype == reference.dtype and ours.shape == reference.shape
    return ((ours.double() - reference.double()).abs().max() / reference.double().abs().max()).item()


torch.manual_seed(0)
found = {}
for dtype in (torch.float32, torch.bfloat16):
    for heads, width in ((3, 64), (5, 76), (4, 80)):
        for own_places in (False, True):
            found[f"{dtype} {heads} heads of {width} {own_places}"] = norm_rotate(heads, width, dtype, own_places)
    for columns in (kernels.COLUMNS, kernels.COLUMNS + 24, 8):
        found[f"{dtype} silu {columns}"] = silu_product(columns, dtype)
print(json.dumps(found))
