"""Whole task models against the port of Sapiens2 in `transformers`, at small sizes and with weights that all count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import naive_encoder
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sapiens2.model.backbone import Backbone
from sapiens2.model.heads import DeconvHead, PointmapHead, ShuffleHead
from sapiens2.model.sizes import Architecture
from sapiens2.model.transformers_heads import from_transformers_task, to_transformers_task
from sapiens2.model.weights import load_weights
from sapiens2.tasks.build import TaskModel, build_task

port = pytest.importorskip("transformers.models.sapiens2.modeling_sapiens2", reason="needs transformers with Sapiens2")

DIM = 48
LAYOUT = Architecture(dim=DIM, layers=2, heads=2)
TOLERANCE = 1e-5
UPS, CONVS, SCALE, HIDDEN = (24, 16), (12, 8), (16, 12, 8), (10, 6)
CASES: dict[str, tuple[str, str]] = {
    "pose": ("Sapiens2ForPoseEstimation", "heatmaps"),
    "segmentation": ("Sapiens2ForSemanticSegmentation", "logits"),
    "normal": ("Sapiens2ForNormalEstimation", "normals"),
    "pointmap": ("Sapiens2ForPointmapEstimation", "pointmaps"),
}


def ours(task: str) -> TaskModel:
    head: nn.Module
    if task == "pose":
        head = DeconvHead(DIM, UPS, CONVS, 7, "pose")
    elif task == "segmentation":
        head = DeconvHead(DIM, UPS, CONVS, 5, "seg")
    elif task == "pointmap":
        head = PointmapHead(DIM, UPS, CONVS, SCALE, HIDDEN, pooled=False)
    else:
        head = ShuffleHead(DIM, UPS, CONVS, task)
    model = TaskModel(task, "1b", Backbone(LAYOUT), head).eval()  # type: ignore[arg-type]
    naive_encoder.randomise(model)
    return model


def theirs(task: str, image: tuple[int, int]) -> nn.Module:
    from transformers.models.sapiens2 import Sapiens2Config

    shuffle = task in ("normal", "pointmap")
    head: dict[str, Any] = {"upsample_out_channels": list(UPS), "conv_out_channels": list(CONVS)}
    if shuffle:
        head |= {"use_pixel_shuffle": True, "upsample_kernel_size": 3, "conv_kernel_size": 3}
    if task == "pointmap":
        head |= {"scale_conv_out_channels": list(SCALE), "scale_final_hidden_sizes": list(HIDDEN)}
    config = Sapiens2Config(
        hidden_size=DIM,
        intermediate_size=LAYOUT.hidden,
        num_hidden_layers=LAYOUT.layers,
        num_attention_heads=LAYOUT.heads,
        num_key_value_heads_per_layer=[LAYOUT.heads] * LAYOUT.layers,
        image_size=image,
        num_labels={"pose": 7, "segmentation": 5}.get(task, 3),
        head_config=head,
    )
    model: nn.Module = getattr(port, CASES[task][0])(config)
    return model.eval()


@pytest.mark.parametrize("task", CASES)
def test_answers_equal_the_port(task: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    # The scale branch flattens a grid of 64 x 48: the smallest picture that it takes is the full one.
    size = (1024, 768) if task == "pointmap" else (64, 96)
    model, twin = ours(task), theirs(task, size)
    state = to_transformers_task(model.state_dict())
    twin.load_state_dict(state, strict=True)
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        got, wanted = model(images), twin(images)
    pairs = [(next(iter(got.values())), getattr(wanted, CASES[task][1]))]
    if task == "pointmap":
        pairs.append((got["scale"], wanted.scales.squeeze(-1)))
    for a, b in pairs:
        assert a.shape == b.shape and float(b.abs().max()) > 0
        assert ((a - b).norm() / b.norm()).item() <= TOLERANCE
    # And the port's own file is taken as it is.
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "theirs.safetensors")
    again = ours(task)
    naive_encoder.randomise(again, seed=1)
    load_weights(again, tmp_path / "theirs.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_what_the_port_lacks_is_refused() -> None:
    with torch.device("meta"):
        albedo = TaskModel("albedo", "1b", Backbone(LAYOUT), ShuffleHead(DIM, UPS, CONVS, "albedo")).state_dict()
        pose = build_task("pose", "1b").state_dict()
    with pytest.raises(ValueError, match="albedo"):
        to_transformers_task(albedo)
    assert from_transformers_task(to_transformers_task(pose), "conv_pose").keys() == pose.keys()
