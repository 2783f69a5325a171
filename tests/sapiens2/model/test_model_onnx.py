"""ONNX export: onnxruntime gives what torch gives, for every task, any batch, both rotations; else no file is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from sapiens2.model import sizes
from sapiens2.model.backbone import Backbone
from sapiens2.model.onnx_export import export_onnx
from sapiens2.model.sizes import Architecture
from sapiens2.tasks.build import build_task

SIZE = (64, 48)
SHALLOW = Architecture(dim=64, layers=2, heads=2)  # exporting costs time by the layer, and layers are alike


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter random, so that nothing hides behind an initial zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("task", ["pose", "pointmap"])
def test_a_task_model_runs_in_onnxruntime_at_any_batch(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sizes.SIZES, "tiny", SHALLOW)
    model = randomised(build_task(task, "tiny"))
    done = export_onnx(model, tmp_path / "model.onnx", SIZE)
    assert done.error < 1e-4 and done.rotation == 0 and done.dynamic_batch
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    images = torch.rand(5, 3, *SIZE)
    expected = model(images)
    assert [o.name for o in session.get_outputs()] == list(expected) == list(done.outputs)
    for name, given in zip(expected, session.run(None, {"images": images.numpy()})):
        scale = float(expected[name].abs().max())
        np.testing.assert_allclose(given, expected[name].detach().numpy(), atol=1e-4 * scale)


def test_a_backbone_with_shared_keys_and_bfloat16_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "FULL_ATTENTION_EDGE", 1)  # layers with keys of their own at either end
    model = randomised(Backbone(Architecture(dim=64, layers=3, heads=2), rope_dtype="bfloat16"))
    assert [block.attn.wk.out_features for block in model.blocks] == [64, 32, 64]
    done = export_onnx(model, tmp_path / "b" / "backbone.onnx", SIZE)
    assert done.outputs == ("cls", "registers", "patches")
    assert done.error < 1e-4 and 0 < done.rotation < 0.1
    assert [p.name for p in (tmp_path / "b").iterdir() if p.suffix == ".onnx"] == ["backbone.onnx"]
    assert isinstance(model.rope.rows(4, 3, torch.device("cpu")).cos, torch.Tensor) and model.rope.dtype == "bfloat16"


def test_a_file_that_differs_is_not_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"onnxruntime differs from torch by .* was not written"):
        export_onnx(randomised(Backbone(SHALLOW)), tmp_path / "backbone.onnx", SIZE, tolerance=0.0)
    assert not list(tmp_path.iterdir())
