"""A model as an ONNX file of one input size, rotation tables baked in as constants, checked against onnxruntime.

The released bfloat16 rotation is exported with its bfloat16 tables, but multiplied in fp32: few ONNX runtimes know
bfloat16. How far that is from the model as it is, the check says.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sapiens2.model.backbone import Backbone
from sapiens2.model.rope import RopeRows, RopeTables

OPSET = 18
TOLERANCE = 1e-3
"""Largest error of an output relative to its largest value at which a file is written: fp32 in another order."""
_BATCHES = (1, 3)


@dataclass(frozen=True)
class Exported:
    """What was written: names of the outputs, and their errors relative to their largest value."""

    outputs: tuple[str, ...]
    error: float  # onnxruntime against the exported model in torch, over all outputs and batch sizes
    rotation: float  # exported model against the original, in torch: 0 unless rotation is bfloat16
    dynamic_batch: bool


class _BakedTables(RopeTables):
    """The rows of one grid, as fp32 constants."""

    def __init__(self, rope: RopeTables, height: int, width: int) -> None:
        super().__init__(rope.head_dim, rope.dtype)
        rows = rope.rows(height, width, torch.device("cpu"))
        self.baked = RopeRows(rows.cos.float(), rows.sin.float())

    def rows(self, height: int, width: int, device: torch.device) -> RopeRows:
        return self.baked


class _Plain(nn.Module):
    """A model whose outputs are a tuple of tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: [B, 3, H, W] normalised; backbone: cls, registers, patches; task model: its raw outputs."""
        out = self.model(images)
        return tuple(out.values()) if isinstance(out, dict) else (out.cls, out.registers, out.patches)


def export_onnx(
    model: nn.Module, path: str | Path, size: tuple[int, int], *, tolerance: float = TOLERANCE, seed: int = 0
) -> Exported:
    """Writes `model`, a backbone or a task model, for inputs [B, 3, height, width] named `images`, in fp32.

    Any batch where torch can export that, else a batch of 1. Raises ValueError when onnxruntime does not give what
    torch gives: no file is left then. Weights above 2 GB go to a file beside it.
    """
    baked = _baked(model, size)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(max(_BATCHES), 3, *size, generator=generator)
    with torch.inference_mode():
        names = _names(baked.model, images[:1])
        rotation = _error(_values(_Plain(model.cpu().eval()), images[:1]), _values(baked, images[:1]))
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        written = Path(folder) / target.name
        _write(baked, images, written, names)
        dynamic = _any_batch(written)
        error = max(_compare(baked, written, images[:n]) for n in (_BATCHES if dynamic else (1,)))
        if not error <= tolerance:
            raise ValueError(
                f"onnxruntime differs from torch by {error:.2e} of the largest output, more than {tolerance:.0e}: "
                f"{target} was not written"
            )
        for file in sorted(Path(folder).iterdir(), reverse=True):  # weights beside the model first
            file.replace(target.parent / file.name)
    return Exported(names, error, rotation, dynamic)


def _baked(model: nn.Module, size: tuple[int, int]) -> _Plain:
    """A copy in fp32 on the CPU with constant tables."""
    twin = copy.deepcopy(model).cpu().float().eval()
    for module in twin.modules():
        if isinstance(module, Backbone):
            module.rope = _BakedTables(module.rope, *module.grid(*size))
    return _Plain(twin)


def _names(model: nn.Module, images: Tensor) -> tuple[str, ...]:
    out = model(images)
    return tuple(out) if isinstance(out, dict) else ("cls", "registers", "patches")


def _write(model: nn.Module, images: Tensor, path: Path, names: tuple[str, ...]) -> None:
    """Exports with a free batch size, or where that fails with a batch of 1."""
    options: dict[str, Any] = {"dynamo": True, "opset_version": OPSET, "verbose": False}
    options |= {"input_names": ["images"], "output_names": list(names)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            free = ({0: torch.export.Dim("batch", min=1, max=1024)},)
            program = torch.onnx.export(model, (images[:2],), dynamic_shapes=free, **options)
        except (torch.onnx.errors.OnnxExporterError, torch._dynamo.exc.UserError):
            program = torch.onnx.export(model, (images[:1],), **options)
    assert program is not None
    program.save(str(path))


def _any_batch(path: Path) -> bool:
    """Whether the first axis of the input is free in the file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return not isinstance(session.get_inputs()[0].shape[0], int)


def _compare(model: nn.Module, path: Path, images: Tensor) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = [torch.from_numpy(array) for array in session.run(None, {"images": images.numpy()})]
    with torch.inference_mode():
        return _error(_values(model, images), given)


def _values(model: nn.Module, images: Tensor) -> list[Tensor]:
    return [value.float() for value in model(images)]


def _error(expected: list[Tensor], given: list[Tensor]) -> float:
    """The largest difference of any output over the largest value of that output; infinite for another shape."""
    worst = 0.0
    for a, b in zip(expected, given, strict=True):
        if a.shape != b.shape or not torch.isfinite(b).all():
            return float("inf")
        worst = max(worst, float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)))
    return worst
