"""What `sapiens2 export` does: a checkpoint to an ONNX file, and how far the two are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from components.prediction.run import resolve_checkpoint


def run_export(
    task: str, out: str, checkpoint: str | None, size: str | None, image_size: tuple[int, int] | None, root: str
) -> None:
    """Raises ValueError for weights that do not fit and for a file that onnxruntime reads differently."""
    from sapiens2.model.onnx_export import export_onnx
    from sapiens2.tasks.load import load_backbone, load_task
    from sapiens2.tasks.predict import input_size

    weights = resolve_checkpoint(checkpoint, root, task)
    model: Any
    if task == "backbone":
        sized: Any = size
        model = load_backbone(weights, size=sized)
        if image_size is None:
            raise ValueError("a backbone takes any size, an ONNX file one: give --image-size H W")
        shape = image_size
    else:
        model = load_task(weights, task=task, size=size, device="cpu")  # type: ignore[arg-type]
        shape = image_size or input_size(model)
    done = export_onnx(model, out, (int(shape[0]), int(shape[1])))
    batch = "any batch" if done.dynamic_batch else "batch 1"
    click.echo(f"{out}: images [{batch}, 3, {shape[0]}, {shape[1]}] -> {', '.join(done.outputs)}, fp32")
    click.echo(f"largest error of onnxruntime against torch, relative to the largest output: {done.error:.2e}")
    if done.rotation:
        click.echo(f"bfloat16 rotation multiplied in fp32 moves the output by {done.rotation:.2e}")
    click.echo(f"{sum(p.stat().st_size for p in Path(out).parent.glob(Path(out).name + '*')) / 1e6:.1f} MB")
