"""Heads: published parameter counts, released names, output shapes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sapiens2.model.backbone import build_backbone
from sapiens2.model.heads import DeconvHead, PointmapHead, ShuffleHead, flops, parameter_count
from sapiens2.model.heads_small import Residual, SmallHead, unshaded
from sapiens2.model.normalise import normalise
from sapiens2.model.rope import periods
from sapiens2.model.sizes import architecture
from sapiens2.model.weights import load_weights
from sapiens2.tasks.build import TaskModel, build_head, build_task
from sapiens2.tasks.head_specs import OUTPUT, TASKS

KINDS = ("weight", "bias")

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
    ("albedo", "0.8b"): (70.3, None),
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
    stride = {"pose": 4, "segmentation": 1, "albedo": 1}.get(task, 2)
    with torch.no_grad():
        for height, width in ((64, 48), (32, 80)):
            out = model(torch.randn(2, 3, height, width))
            channels = {"pose": 308, "segmentation": 29}.get(task, 3)
            assert out[OUTPUT[task]].shape == (2, channels, height // stride, width // stride)
            assert ("scale" in out) == (task == "pointmap")


def test_one_sub_pixel_alone_and_its_gradient() -> None:
    """The rows of the last layer that answer it, and what reaches the weights, are those of the whole answer."""
    torch.manual_seed(0)
    head = SmallHead(16, 5, stride=2, width=32, fine=2, deep=2, broad=32)
    features, images = torch.randn(2, 16, 2, 3), torch.randn(2, 3, 32, 48)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        grads = []
        for out in (head(features, images)[:, :, row::2, column::2], head(features, images, (row, column))):
            assert out.shape == (2, 5, 16, 24)
            grads.append((out, *torch.autograd.grad(out.square().sum(), list(head.parameters()))))
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-6)


def test_a_fresh_pair_of_convolutions_adds_nothing() -> None:
    for pair in (m for m in build_head("segmentation", "tiny").modules() if isinstance(m, Residual)):
        x = torch.randn(2, pair.second.in_channels, 6, 5)
        assert torch.equal(pair(x), torch.nn.functional.silu(x))


def test_the_small_heads_last_layer_is_its_convolution() -> None:
    head = build_head("segmentation", "tiny")
    assert isinstance(head, SmallHead) and head.conv_out.bias is not None and head.gain != 1
    torch.nn.init.normal_(head.conv_out.bias)
    x = torch.randn(2, head.conv_out.in_channels, 6, 5).contiguous(memory_format=torch.channels_last)
    expected = head.conv_out(x) * head.gain
    torch.testing.assert_close(head._answers(x, "apart"), expected)
    torch.testing.assert_close(head._answers(x, (1, 0)), expected[:, 2::4])


def test_albedo_is_the_picture_without_its_light() -> None:
    """A factor and an offset of each channel, on a coarser grid: by hand, and the picture where nothing is learned."""
    pixels = torch.randint(0, 256, (1, 4, 6, 3), dtype=torch.uint8)
    change = torch.zeros(1, 6, 2, 3)
    change[:, 0], change[:, 4] = math.log(2), 0.25  # red twice as bright, a quarter more green
    share = pixels.movedim(-1, 1) / 255
    expected = torch.stack([2 * share[:, 0], share[:, 1] + 0.25, share[:, 2]], 1)
    torch.testing.assert_close(unshaded(normalise(pixels), change), expected)
    model = build_task("albedo", "tiny")
    assert isinstance(model.decode_head, SmallHead)
    torch.nn.init.zeros_(model.decode_head.conv_out.weight)
    big = torch.randint(0, 256, (2, 64, 48, 3), dtype=torch.uint8)
    torch.testing.assert_close(model(normalise(big))["albedo"], big.movedim(-1, 1) / 255)


def test_unknown_task_and_size_are_refused() -> None:
    with pytest.raises(ValueError, match="gaze"):
        build_head("gaze", "tiny")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="7b"):
        build_head("pose", "7b")


def test_pose_convolutions_as_the_paper_prints_them() -> None:
    with torch.device("meta"):
        head = build_head("pose", "1b", style="paper")
        widths = [m.out_channels for m in head.modules() if isinstance(m, torch.nn.Conv2d)]
        assert widths == [768, 768, 512, 308]
        for task in TASKS[1:]:
            released, printed = (build_head(task, "1b", style=style) for style in ("release", "paper"))
            assert parameter_count(released) == parameter_count(printed)


@pytest.mark.parametrize("task", TASKS)
def test_4k_models_decode_to_2k(task: str) -> None:
    """4096 x 3072 pixels, tokens on a grid of 64 x 48, maps of 2048 x 1536; pose keeps the released heatmaps."""
    with torch.device("meta"):
        model = build_task(task, "0.4b", window_tokenizer=True)
        model.backbone.blocks = torch.nn.ModuleList()  # the grid is what matters here
        out = model(torch.empty(1, 3, 4096, 3072))
    assert out[OUTPUT[task]].shape[-2:] == ((256, 192) if task == "pose" else (2048, 1536))
    assert ("scale" in out) == (task == "pointmap")


def test_every_task_and_size_is_built_and_counted() -> None:
    with torch.device("meta"):
        for task in TASKS:
            counts = [parameter_count(build_head(task, size)) for size in ("tiny", "0.1b", "0.4b", "0.8b", "1b", "5b")]
            assert counts[0] < counts[1] < min(counts[2:]), task


def test_released_task_files_load_strictly(tmp_path: Path) -> None:
    """A file as released: names and shapes of the specification's tables written out here, periods in bfloat16."""
    layers, dim = 12, 768  # the 0.1B backbone under a head of the released kind
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, dim),
        "storage_tokens": (1, 8, dim),
        "patch_embed.projection.weight": (dim, 3, 16, 16),
        "patch_embed.projection.bias": (dim,),
        "ln1.weight": (dim,),
    }
    for i in range(layers):
        maps = [f"attn.{w}.{k}" for w in ("wq", "wk", "wv", "proj") for k in KINDS]
        block: dict[str, tuple[int, ...]] = {m: (dim, dim) if m.endswith("weight") else (dim,) for m in maps}
        block |= {"attn.q_norm.weight": (64,), "attn.k_norm.weight": (64,), "attn.gamma.weight": (dim,)}
        block |= {"ln1.weight": (dim,), "ln2.weight": (dim,), "ffn.w12.weight": (6144, dim), "ffn.w12.bias": (6144,)}
        block |= {"ffn.w3.weight": (dim, 3072), "ffn.w3.bias": (dim,)}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    state = {f"backbone.{name}": torch.randn(shape) * 0.02 for name, shape in shapes.items()}
    state["backbone.rope_embed.periods"] = periods(64, torch.bfloat16)
    ups, convs, width = (48, 32, 24, 16), (16, 8), dim
    for b, up in enumerate(ups):
        state[f"decode_head.upsample_blocks.{b}.0.weight"] = torch.randn(4 * up, width, 3, 3)
        state[f"decode_head.upsample_blocks.{b}.0.bias"] = torch.randn(4 * up)
        state[f"decode_head.upsample_blocks.{b}.2.norm.weight"] = torch.randn(up)
        width = up
    for k, conv in enumerate(convs):
        state[f"decode_head.conv_layers.{3 * k}.weight"] = torch.randn(conv, width, 3, 3)
        state[f"decode_head.conv_layers.{3 * k}.bias"] = torch.randn(conv)
        state[f"decode_head.conv_layers.{3 * k + 1}.norm.weight"] = torch.randn(conv)
        width = conv
    state["decode_head.input_conv.0.weight"] = torch.randn(dim, dim, 3, 3)
    state["decode_head.input_conv.0.bias"] = torch.randn(dim)
    state["decode_head.input_conv.1.norm.weight"] = torch.randn(dim)
    state["decode_head.conv_albedo.weight"] = torch.randn(3, width, 1, 1)
    state["decode_head.conv_albedo.bias"] = torch.randn(3)
    save_file(state, tmp_path / "albedo.safetensors")
    with torch.device("meta"):
        model = TaskModel("albedo", "0.1b", build_backbone("0.1b"), ShuffleHead(dim, ups, convs, "albedo"))
    load_weights(model, tmp_path / "albedo.safetensors")
    assert model.backbone.rope.dtype == "bfloat16"
    held = model.state_dict()
    assert all(torch.equal(held[name], t) for name, t in state.items() if "periods" not in name)
    lost = {name: t for name, t in state.items() if name != "decode_head.conv_layers.4.norm.weight"}
    save_file(lost, tmp_path / "lost.safetensors")
    with pytest.raises(ValueError, match=r"conv_layers\.4\.norm\.weight"):
        load_weights(model, tmp_path / "lost.safetensors")


def test_initialisation_is_the_published_one() -> None:
    """Spread by fan: out for convolutions (gain sqrt 2), in for linear maps; transposed ones in pose alone."""
    torch.manual_seed(0)
    pose, seg = DeconvHead(256, (128,), (128,), 64, "pose"), DeconvHead(256, (128,), (128,), 64, "seg")
    conv, up = pose.conv_layers[0].weight, pose.deconv_layers[0].weight
    assert float(conv.detach().std()) == pytest.approx((2 / 128) ** 0.5, rel=0.03)
    # torch counts the fan of a [in, out, k, k] weight as in x k x k.
    assert float(up.detach().std()) == pytest.approx((2 / (256 * 16)) ** 0.5, rel=0.03)
    bound = 1 / (128 * 16) ** 0.5
    assert float(seg.deconv_layers[0].weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)
    head = PointmapHead(64, (8,), (8,), (64, 64), (128, 64), pooled=False)
    assert float(head.scale_final_layer[1].weight.detach().std()) == pytest.approx((1 / (64 * 48)) ** 0.5, rel=0.03)
    biases = [p for name, p in pose.named_parameters() if name.endswith("bias")]
    assert biases and all((p == 0).all() for p in biases)
