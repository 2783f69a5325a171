"""Attention's fast ways against the plain one, forward and gradient: shared key heads, padded heads."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sapiens2.model import block

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One query head at a time, by matrices."""
    shared = q.shape[1] // k.shape[1]
    out = []
    for head in range(q.shape[1]):
        keys, values = k[:, head // shared], v[:, head // shared]
        scores = q[:, head] @ keys.mT / q.shape[-1] ** 0.5
        out.append(scores.softmax(-1) @ values)
    return torch.stack(out, 1)


def with_gradients(attend: Attend, inputs: list[Tensor], probe: Tensor) -> list[Tensor]:
    """The outcome and the gradients of q, k and v."""
    own = [x.detach().requires_grad_() for x in inputs]
    out = attend(*own)
    return [out.detach(), *torch.autograd.grad((out * probe).sum(), own)]


def drawn(heads: int, kv_heads: int, width: int, dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """q with five tokens, k and v with seven, and a probe of the outcome's shape."""
    torch.manual_seed(0)
    shapes = [(2, heads, 5, width), (2, kv_heads, 7, width), (2, kv_heads, 7, width), (2, heads, 5, width)]
    *inputs, probe = (torch.randn(shape, dtype=dtype) for shape in shapes)
    return inputs, probe


@pytest.mark.parametrize("kv_heads", [4, 2], ids=["own keys", "shared keys"])
@pytest.mark.parametrize("width", [64, 76, 80])
@pytest.mark.parametrize("name", ["attend", "attend_repeated", "attend_shared", "attend_padded", "attend_written"])
def test_every_way_equals_plain_matrices_forward_and_gradient(name: str, width: int, kv_heads: int) -> None:
    inputs, probe = drawn(4, kv_heads, width, torch.float64)
    for ours, reference in zip(
        with_gradients(getattr(block, name), inputs, probe), with_gradients(plain, inputs, probe)
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["attend", "attend_shared", "attend_padded", "attend_written"])
def test_in_16_bits_the_ways_differ_by_rounding_only(name: str) -> None:
    inputs, probe = drawn(4, 2, 76, torch.bfloat16)
    exact = with_gradients(plain, [x.double() for x in inputs], probe.double())
    for ours, reference in zip(with_gradients(getattr(block, name), inputs, probe), exact):
        assert (ours.double() - reference).norm() < 1e-2 * reference.norm()


def asked_of_the_kernel(q: Tensor, k: Tensor, v: Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, bool]:
    """Key heads and channels that reach torch's attention, and whether it is to share the heads."""
    seen: list[tuple[int, int, bool]] = []
    original = F.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, enable_gqa: bool = False) -> Tensor:
        seen.append((k.shape[1], q.shape[-1], enable_gqa))
        return original(q, k, v, scale=scale, enable_gqa=enable_gqa)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    with torch.no_grad():
        assert block.attend(q, k, v).shape == q.shape
    return seen[0]


def test_the_way_is_chosen_by_dtype_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype, expected in ((torch.float32, (4, 76, False)), (torch.bfloat16, (2, 76, True))):
        inputs, _ = drawn(4, 2, 76, dtype)
        assert asked_of_the_kernel(*inputs, monkeypatch) == expected
    monkeypatch.setattr(Tensor, "is_cuda", True)  # as if the tensors lay on a GPU
    for width, expected in ((76, (2, 80, True)), (64, (2, 64, True))):
        inputs, _ = drawn(4, 2, width, torch.bfloat16)
        assert asked_of_the_kernel(*inputs, monkeypatch) == expected
    inputs, _ = drawn(4, 2, 76, torch.float32)
    assert asked_of_the_kernel(*inputs, monkeypatch) == (4, 76, False)


def test_halves_made_apart_equal_the_one_product_and_leave_the_input_alone() -> None:
    torch.manual_seed(0)
    ffn, x = block.SwiGLU(24, 40), torch.randn(2, 5, 24)
    hidden = F.linear(x, ffn.w12.weight, ffn.w12.bias)
    expected = F.linear(hidden[..., :40].sigmoid() * hidden[..., :40] * hidden[..., 40:], ffn.w3.weight, ffn.w3.bias)
    before = x.clone()
    with torch.no_grad():
        quick = ffn(x)
    torch.testing.assert_close(quick, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ffn(x), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(x, before)


def test_compiled_inference_on_a_cpu_makes_the_halves_apart_too() -> None:
    torch.manual_seed(0)
    ffn, x = block.SwiGLU(24, 40), torch.randn(2, 5, 24)
    graphs: list[torch.fx.GraphModule] = []

    def kept(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(ffn, backend=kept, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), ffn(x), rtol=1e-5, atol=1e-6)
    compiled(x)
    products = [sum(node.target is torch._C._nn.linear for node in graph.graph.nodes) for graph in graphs]
    assert products == [3, 2]  # apart in inference; in training one product makes both


def test_a_cpu_that_trains_in_16_bits_writes_short_attention_out(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    original = block.attend_written
    monkeypatch.setattr(block, "attend_written", lambda q, k, v: (written.append(k.shape[2]), original(q, k, v))[1])
    for dtype, tokens in ((torch.bfloat16, 128), (torch.bfloat16, 129), (torch.float32, 128)):
        q, k, v = (torch.randn(1, 2, tokens, 16, dtype=dtype) for _ in range(3))
        block.attend(q, k, v)
        with torch.no_grad():
            block.attend(q, k, v)
    assert written == [128]


def test_norms_under_autocast_are_computed_in_the_width_of_their_weight() -> None:
    norm, x = block.Norm(16, eps=1e-6), torch.randn(3, 16, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of mixed widths, which it computes slowly
        out = norm(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, x.float() * x.float().square().mean(-1, keepdim=True).add(1e-6).rsqrt())
