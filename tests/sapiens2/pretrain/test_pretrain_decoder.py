"""The decoder: tokens at their places, positions, and rows gathered before the last map."""

from __future__ import annotations

import pytest
import torch

from sapiens2.pretrain.decoder import MaskedDecoder, complement, sine_cosine, take

GRID = (4, 3)


@pytest.fixture
def decoder() -> MaskedDecoder:
    torch.manual_seed(0)
    model = MaskedDecoder(encoder_dim=16, dim=24, layers=2, heads=2, pixels=12)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


KEPT = torch.tensor([[0, 5, 7], [1, 2, 11]])
MASKED = torch.tensor([[1, 2, 3, 4, 6, 8, 9, 10, 11], [0, 3, 4, 5, 6, 7, 8, 9, 10]])


def test_complement_and_take() -> None:
    assert torch.equal(complement(KEPT, 12), MASKED)
    x = torch.randn(2, 12, 5, 4)
    assert torch.equal(take(x, KEPT)[1], x[1, [1, 2, 11]])


def test_visible_tokens_return_to_their_places(decoder: MaskedDecoder) -> None:
    visible = torch.randn(2, 3, 16)
    full = decoder.fill(visible, KEPT, GRID) - sine_cosine(GRID, 24, torch.device("cpu"))
    torch.testing.assert_close(take(full, KEPT), decoder.embed(visible), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(take(full, MASKED), decoder.mask_token.expand(2, 9, -1), rtol=1e-4, atol=1e-5)


def test_positions_tell_all_places_apart_and_move_with_the_grid() -> None:
    small, large = sine_cosine((4, 3), 24, torch.device("cpu")), sine_cosine((8, 6), 24, torch.device("cpu"))
    assert torch.pdist(large).min() > 0.5
    assert torch.equal(small[1 * 3 + 2], large[1 * 6 + 2])


def test_gathering_before_the_last_map_is_exact_forward_and_gradient(decoder: MaskedDecoder) -> None:
    cls, visible = torch.randn(2, 16), torch.randn(2, 3, 16)
    fast = decoder(cls, visible, KEPT, MASKED, GRID)
    x = torch.cat([decoder.embed(cls[:, None]), decoder.fill(visible, KEPT, GRID)], 1)
    for block in decoder.blocks:
        x = block(x, None)
    slow = take(decoder.predict(decoder.norm(x[:, 1:])), MASKED)
    torch.testing.assert_close(fast, slow)
    probe = torch.randn_like(fast)
    for a, b in zip(
        torch.autograd.grad((fast * probe).sum(), list(decoder.parameters()), retain_graph=True),
        torch.autograd.grad((slow * probe).sum(), list(decoder.parameters())),
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_class_token_and_the_visible_ones_reach_every_answer(decoder: MaskedDecoder) -> None:
    cls, visible = torch.randn(2, 16, requires_grad=True), torch.randn(2, 3, 16, requires_grad=True)
    decoder(cls, visible, KEPT, MASKED, GRID)[0, 4].sum().backward()
    assert cls.grad is not None and cls.grad[0].abs().sum() > 0 and cls.grad[1].abs().sum() == 0
    assert visible.grad is not None and (visible.grad[0].abs().sum(1) > 0).all() and visible.grad[1].abs().sum() == 0


def test_every_parameter_is_initialised(decoder: MaskedDecoder) -> None:
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.fill_(torch.nan)
    decoder.init_weights()
    assert all(torch.isfinite(p).all() for p in decoder.parameters())
    assert decoder.mask_token.std() > 0.01
