"""The 4K window tokenizer against a loop over windows written from the specification."""

from __future__ import annotations

import naive_encoder
import pytest
import torch
from torch import Tensor

from sapiens2.model import tokenizer
from sapiens2.model.backbone import Backbone
from sapiens2.model.sizes import Architecture
from sapiens2.pretrain.decoder import take

ARCHITECTURE = Architecture(dim=32, layers=2, heads=2, tokenizer_layers=2)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def build() -> Backbone:
    model = Backbone(ARCHITECTURE, window_tokenizer=True)
    naive_encoder.randomise(model)
    return model


def naive_tokens(model: Backbone, image: Tensor) -> Tensor:
    """One image [3, H, W] -> one token per window of 64 x 64 pixels, row-major; double."""
    w = {name: p.double() for name, p in model.named_parameters()}
    kernel = w["patch_embed.projection.weight"].flatten(1)
    out = []
    for top in range(0, image.shape[1], 64):
        for left in range(0, image.shape[2], 64):
            window = [w["tokenizer.w_cls"][0, 0]]
            for y in range(top, top + 64, 16):
                for x in range(left, left + 64, 16):
                    pixels = image[:, y : y + 16, x : x + 16].double().flatten()
                    window.append(kernel @ pixels + w["patch_embed.projection.bias"])
            tokens = torch.stack(window) + w["tokenizer.local_pos_embed"][0]
            for block in range(ARCHITECTURE.tokenizer_layers):
                own = f"tokenizer.blocks.{block}."
                tokens = naive_block(tokens, {n.removeprefix(own): p for n, p in w.items() if n.startswith(own)})
            out.append(tokens[0])
    return torch.stack(out)


def naive_block(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """No QK-norm, no rotation, no LayerScale."""
    h = naive_encoder.rms(x, w["ln1.weight"])
    q, k, v = (h @ w[f"attn.w{n}.weight"].T + w[f"attn.w{n}.bias"] for n in "qkv")
    heads = [(q[:, s] @ k[:, s].T / 16**0.5).softmax(-1) @ v[:, s] for s in (slice(0, 16), slice(16, 32))]
    x = x + torch.cat(heads, 1) @ w["attn.proj.weight"].T + w["attn.proj.bias"]
    gate, value = (naive_encoder.rms(x, w["ln2.weight"]) @ w["ffn.w12.weight"].T + w["ffn.w12.bias"]).chunk(2, 1)
    return x + (gate / (1 + torch.exp(-gate)) * value) @ w["ffn.w3.weight"].T + w["ffn.w3.bias"]


@pytest.mark.parametrize("chunk", [2, 1024])
def test_tokens_equal_the_naive_loop_forward_and_gradient(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "WINDOWS_PER_CHUNK", chunk)
    model = build().train()
    images = torch.randn(2, 3, 128, 192)
    ours = model.embed(model.patchify(images))
    naive = torch.stack([naive_tokens(model, image) for image in images])
    assert ours.shape == (2, 6, 32)
    assert (ours - naive).norm() / naive.norm() < 1e-5
    probe = torch.randn_like(ours)
    names = [n for n, _ in model.named_parameters() if n.startswith(("patch_embed", "tokenizer"))]
    parameters = [p for n, p in model.named_parameters() if n in names]
    fast = torch.autograd.grad((ours * probe).sum(), parameters)
    slow = torch.autograd.grad((naive * probe).sum(), parameters)
    scale = max(gradient.norm() for gradient in slow)  # a key bias has no gradient at all
    for name, a, b in zip(names, fast, slow):
        assert (a - b).norm() <= 1e-5 * b.norm() + 1e-6 * scale, name


def test_running_the_visible_windows_only_is_exact_forward_and_gradient() -> None:
    model = build()
    patches = model.patchify(torch.randn(2, 3, 192, 128))
    kept = torch.tensor([[0, 4], [2, 5]])
    few, every = model.embed(take(patches, kept)), take(model.embed(patches), kept)
    torch.testing.assert_close(few, every)
    probe = torch.randn_like(few)
    parameters = [p for n, p in model.named_parameters() if n.startswith(("patch_embed", "tokenizer"))]
    fast = torch.autograd.grad((few * probe).sum(), parameters)
    slow = torch.autograd.grad((every * probe).sum(), parameters)
    scale = max(gradient.norm() for gradient in slow)  # a key bias has no gradient at all
    for ours, reference in zip(fast, slow):
        assert (ours - reference).norm() <= 1e-5 * reference.norm() + 1e-6 * scale


def test_a_4k_image_reaches_the_encoder_as_a_small_grid() -> None:
    model = build().eval()
    out = model(torch.randn(1, 3, 256, 192))
    assert out.patches.shape == (1, 32, 4, 3)
    assert model.stride == 64
    with pytest.raises(ValueError, match="64 pixels"):
        model(torch.zeros(1, 3, 96, 64))


def test_a_pixel_reaches_its_own_token_only() -> None:
    model = build().eval()
    images = torch.randn(1, 3, 128, 128)
    changed = images.clone()
    changed[0, :, 70, 10] += 1.0  # third window
    moved = (model.embed(model.patchify(images)) - model.embed(model.patchify(changed))).abs().sum(-1)[0]
    assert (moved > 0).tolist() == [False, False, True, False]
