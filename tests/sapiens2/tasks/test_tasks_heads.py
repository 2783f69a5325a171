"""Heads: published parameter counts, released names, output shapes."""

from __future__ import annotations

import pytest
import torch

from sapiens2.model.heads import PointmapHead, ShuffleHead, flops, parameter_count
from sapiens2.model.sizes import architecture
from sapiens2.tasks.build import build_head, build_task
from sapiens2.tasks.head_specs import OUTPUT, TASKS

# Millions of parameters and GMAC on a 64 x 48 grid, from the specification's table (section 2).
PUBLISHED = {
    ("pose", "0.4b"): (30.2, 249),
    ("pose", "0.8b"): (34.4, 262),
    ("pose", "1b"): (64.3, 494),
    ("pose", "5b"): (53.3, 320),
    ("segmentation", "0.4b"): (11.2, 111),
    ("segmentation", "0.8b"): (13.2, None),
    ("segmentation", "1b"): (15.3, None),
    ("segmentation", "5b"): (22.7, 146),
    ("normal", "0.4b"): (57.9, 830),
    ("normal", "0.8b"): (70.3, None),
    ("normal", "1b"): (83.9, 910),
    ("normal", "5b"): (249.5, 3027),
    ("albedo", "0.4b"): (57.9, 830),
    ("albedo", "1b"): (83.9, 910),
    ("albedo", "5b"): (249.2, 2856),
    ("pointmap", "0.4b"): (133, 2484),
    ("pointmap", "0.8b"): (153, None),
    ("pointmap", "1b"): (174, 2608),
    ("pointmap", "5b"): (281, 7088),
}


@pytest.mark.parametrize(("task", "size"), PUBLISHED)
def test_released_heads_have_the_published_size(task: str, size: str) -> None:
    millions, gmac = PUBLISHED[task, size]
    with torch.device("meta"):
        head = build_head(task, size)
        assert parameter_count(head) / 1e6 == pytest.approx(millions, abs=0.5 if millions > 100 else 0.06)
        if gmac is not None:
            assert flops(head, architecture(size).dim, 64, 48) / 2e9 == pytest.approx(gmac, rel=0.005)


def test_parameters_bear_the_released_names() -> None:
    with torch.device("meta"):
        names = {task: set(build_head(task, "1b").state_dict()) for task in TASKS}
    assert {"deconv_layers.0.weight", "deconv_layers.3.weight", "conv_layers.6.bias", "conv_pose.weight"} <= names[
        "pose"
    ]
    assert "deconv_layers.9.weight" in names["segmentation"] and "conv_seg.bias" in names["segmentation"]
    assert {"input_conv.0.weight", "upsample_blocks.3.0.bias", "conv_layers.6.weight"} <= names["normal"]
    assert not any("norm" in name.replace("conv_normal", "") for name in names["normal"])  # instance norm: no state
    assert {"input_conv.1.norm.weight", "upsample_blocks.0.2.norm.weight", "conv_layers.7.norm.weight"} <= names[
        "albedo"
    ]
    assert {"scale_conv_layers.6.weight", "scale_final_layer.5.bias", "conv_pointmap.weight"} <= names["pointmap"]


def test_released_layouts_give_pixels_at_a_small_size() -> None:
    """The published structure with narrow layers: shapes of every stage."""
    features = torch.randn(2, 32, 4, 3)
    assert ShuffleHead(32, (16, 8, 8, 8), (8, 4), "normal")(features).shape == (2, 3, 64, 48)
    head = PointmapHead(32, (8, 8), (8,), (16, 8, 4), (8,), pooled=False)
    assert head.scale(torch.randn(2, 32, 64, 48)).shape == (2,)
    with pytest.raises(ValueError, match="1024 x 768"):
        head.scale(features)


@pytest.mark.parametrize("task", TASKS)
def test_tiny_models_take_any_size(task: str) -> None:
    torch.manual_seed(0)
    model = build_task(task, "tiny").eval()
    stride = 4 if task == "pose" else 2
    with torch.no_grad():
        for height, width in ((64, 48), (32, 80)):
            out = model(torch.randn(2, 3, height, width))
            channels = {"pose": 308, "segmentation": 29}.get(task, 3)
            assert out[OUTPUT[task]].shape == (2, channels, height // stride, width // stride)
            assert ("scale" in out) == (task == "pointmap")


def test_unknown_task_and_size_are_refused() -> None:
    with pytest.raises(ValueError, match="gaze"):
        build_head("gaze", "tiny")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="7b"):
        build_head("pose", "7b")
