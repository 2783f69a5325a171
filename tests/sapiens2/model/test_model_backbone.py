"""The backbone against the specification's table and a naive encoder."""

from __future__ import annotations

import naive_encoder
import pytest
import torch
from torch import Tensor

from sapiens2.model.backbone import Backbone, build_backbone, patchify, unpatchify
from sapiens2.model.rope import concatenate
from sapiens2.model.sizes import SIZES, Architecture
from sapiens2.pretrain.decoder import take

# Specification 1.6: parameters, and multiply-accumulates at 1024 x 768 in units of 1e12 (linear maps, attention).
TABLE = {
    "0.1b": (113_993_472, 0.351, 0.175),
    "0.4b": (395_450_368, 1.217, 0.467),
    "0.8b": (814_283_520, 2.507, 0.778),
    "1b": (1_455_474_176, 4.481, 1.166),
    "5b": (5_066_902_976, 15.605, 2.586),
}
GQA = Architecture(dim=48, layers=17, heads=4)  # layer 8 shares its keys


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def on_meta(size: str, window_tokenizer: bool = False) -> Backbone:
    with torch.device("meta"):
        return build_backbone(size, window_tokenizer=window_tokenizer)


@pytest.mark.parametrize("size", TABLE)
def test_parameters_and_flops_are_those_of_the_table(size: str) -> None:
    parameters, linear, attention = TABLE[size]
    model = on_meta(size)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert all(p.is_meta for p in model.parameters())
    assert model.flops(1024, 768) / 2e12 == pytest.approx(linear + attention, abs=1e-3)


def test_the_4k_model_of_the_table() -> None:
    model = on_meta("1b", window_tokenizer=True)
    assert sum(p.numel() for p in model.parameters()) == 1_606_588_928
    assert model.flops(4096, 3072) / 2e12 == pytest.approx(13.599, abs=2e-3)
    # 240 entries in the released 0.1B file, of which one is the RoPE buffer.
    assert len(on_meta("0.1b", window_tokenizer=True).state_dict()) == 239


def test_key_heads_are_shared_in_the_middle_layers_only() -> None:
    shared = {name: [i for i in range(a.layers) if a.kv_heads(i) != a.heads] for name, a in SIZES.items()}
    ranges = {name: (s[0], s[-1], len(s)) for name, s in shared.items() if s}
    assert ranges == {"0.4b": (8, 15, 8), "0.8b": (8, 23, 16), "1b": (8, 31, 24), "5b": (8, 47, 40)}
    assert SIZES["1b"].kv_heads(8) == 12


@pytest.mark.parametrize("window_tokenizer", [False, True])
def test_every_parameter_is_initialised(window_tokenizer: bool) -> None:
    with torch.device("meta"):
        model = Backbone(GQA, window_tokenizer=window_tokenizer)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    model.init_weights(torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), name
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif "gamma" in name:
            assert (parameter == 1e-4).all(), name
        elif "ln" in name or "norm" in name:
            assert (parameter == 1).all(), name
        else:
            tolerance = 5 * 0.02 / (2 * parameter.numel()) ** 0.5
            assert parameter.std().item() == pytest.approx(0.02, abs=tolerance), name


def test_initial_weights_follow_the_generator() -> None:
    models = [Backbone(GQA) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2)):
        model.init_weights(torch.Generator().manual_seed(seed))
    assert torch.equal(models[0].cls_token, models[1].cls_token)
    assert not torch.equal(models[0].cls_token, models[2].cls_token)


def test_forward_gives_the_promised_shapes_at_any_size() -> None:
    model = Backbone(GQA).eval()
    naive_encoder.randomise(model)
    for height, width in ((64, 48), (16, 80)):
        out = model(torch.randn(2, 3, height, width), taps=(-1, 0))
        assert out.cls.shape == (2, 48)
        assert out.registers.shape == (2, 8, 48)
        assert out.patches.shape == (2, 48, height // 16, width // 16)
        assert torch.equal(out.taps[0], out.patches)  # the last block's tap is the normed output
        assert out.taps[1].shape == out.patches.shape
        assert not torch.allclose(out.taps[1], out.patches, atol=0.1)


@pytest.mark.parametrize("size", [(60, 48), (64, 50), (0, 48)])
def test_a_size_that_does_not_divide_is_refused_with_a_near_one(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{size[0]} x {size[1]} pixels.*16 pixels.*(64|16) x 48"):
        Backbone(GQA)(torch.zeros(1, 3, *size))


def test_bad_choices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown size '2b'.*tiny, 0\.1b"):
        build_backbone("2b")
    with pytest.raises(ValueError, match=r"rope_dtype is 'float16'"):
        build_backbone("tiny", rope_dtype="float16")
    with pytest.raises(ValueError, match="taps"):
        Backbone(GQA)(torch.zeros(1, 3, 16, 16), taps=(17,))
    with pytest.raises(ValueError, match="not divisible by 5 heads"):
        Architecture(dim=48, layers=2, heads=5)


def test_patchify_is_what_the_convolution_reads() -> None:
    model = Backbone(GQA)
    images = torch.randn(2, 3, 48, 32)
    by_convolution = model.patch_embed.projection(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.embed(model.patchify(images)), by_convolution, rtol=1e-5, atol=1e-6)
    assert torch.equal(unpatchify(patchify(images, 16), 3, 2, 16), images)


def relative(ours: Tensor, reference: Tensor) -> float:
    return ((ours.double() - reference).norm() / reference.norm()).item()


@pytest.mark.parametrize("architecture", [GQA, Architecture(dim=76, layers=2, heads=1), Architecture(80, 2, 1)])
def test_dropping_tokens_equals_hiding_their_keys(architecture: Architecture) -> None:
    """The visible-token path, forward and gradient, against the whole grid with the hidden tokens masked out."""
    model = Backbone(architecture)
    naive_encoder.randomise(model)
    grid = (4, 3)
    images = torch.randn(2, 3, 64, 48)
    kept = torch.tensor([[0, 3, 7, 11], [1, 2, 4, 10]])
    patches = model.patchify(images)
    rows = model.rope.rows(*grid, images.device).gather(kept)
    fast = model.ln1(model.encode(model.embed(take(patches, kept)), rows)[0])
    slow = []
    for image in range(2):
        seen = torch.zeros(12, dtype=torch.bool).index_fill(0, kept[image], True)
        every = naive_encoder.encode(model, model.embed(patches[image]), grid, seen)
        slow.append(torch.cat([every[:9], every[9:][seen]]))
    assert relative(fast, torch.stack(slow)) < 3e-6
    probe = torch.randn_like(fast)
    fast_gradients = torch.autograd.grad((fast * probe).sum(), list(model.parameters()))
    slow_gradients = torch.autograd.grad((torch.stack(slow) * probe).sum(), list(model.parameters()))
    for (name, _), ours, reference in zip(model.named_parameters(), fast_gradients, slow_gradients):
        assert relative(ours, reference.double()) < 1e-5, name


def test_class_only_last_block_equals_the_whole_one() -> None:
    model = Backbone(GQA)
    naive_encoder.randomise(model)
    images = torch.randn(2, 3, 48, 48)
    tokens, rows = model.embed(model.patchify(images)), model.rope.rows(3, 3, images.device)
    whole, _ = model.encode(tokens, rows)
    short, _ = model.encode(tokens, rows, class_only=True)
    assert short.shape == (2, 1, 48)
    assert relative(short[:, 0], whole[:, 0].double()) < 1e-6
    probe = torch.randn(2, 48)
    for ours, reference in zip(
        torch.autograd.grad((short[:, 0] * probe).sum(), list(model.blocks.parameters()), retain_graph=True),
        torch.autograd.grad((whole[:, 0] * probe).sum(), list(model.blocks.parameters())),
    ):
        assert (ours - reference).norm() <= 1e-5 * reference.norm() + 1e-6


def test_crops_of_equal_length_run_as_one_batch_forward_and_gradient() -> None:
    model = Backbone(GQA)
    naive_encoder.randomise(model)
    wide, tall = torch.randn(2, 3, 32, 48), torch.randn(1, 3, 96, 16)
    tokens = torch.cat([model.embed(model.patchify(images)) for images in (wide, tall)])
    rows = [model.rope.rows(2, 3, wide.device).expand(2), model.rope.rows(6, 1, tall.device)]
    together = model.ln1(model.encode(tokens, concatenate(rows))[0])[:, 0]
    apart = torch.cat([model(wide).cls, model(tall).cls])
    assert relative(together, apart.double()) < 1e-6
    probe = torch.randn_like(apart)
    parameters = list(model.parameters())
    fast = torch.autograd.grad((together * probe).sum(), parameters)
    slow = torch.autograd.grad((apart * probe).sum(), parameters)
    for (name, _), ours, reference in zip(model.named_parameters(), fast, slow):
        assert (ours - reference).norm() <= 1e-5 * reference.norm() + 1e-6, name


def test_a_table_made_for_inference_serves_training() -> None:
    model = Backbone(GQA)
    with torch.inference_mode():
        model(torch.zeros(1, 3, 32, 32))
    model(torch.zeros(1, 3, 32, 32)).cls.sum().backward()
    assert model.cls_token.grad is not None


def test_half_precision_stays_near() -> None:
    model = Backbone(GQA).eval()
    naive_encoder.randomise(model)
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = model(images).patches
    with torch.no_grad():
        assert relative(half, model(images).patches.double()) < 5e-2
