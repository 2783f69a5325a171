"""The rotary table against the specification's numbers and a rotation by complex numbers."""

from __future__ import annotations

import naive_encoder
import pytest
import torch

from sapiens2.model.rope import RopeTables, compute_rows, periods, rotate

# Specification 1.4, measured on a released file.
RELEASED_PERIODS = [
    *(1, 1.3359375, 1.78125, 2.375, 3.15625, 4.21875, 5.625, 7.5),
    *(10, 13.3125, 17.75, 23.75, 31.625, 42.25, 56.25, 75),
]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_bfloat16_periods_are_the_released_ones() -> None:
    assert periods(64, torch.bfloat16).tolist() == RELEASED_PERIODS


def test_rotation_is_that_of_the_specification() -> None:
    rows = compute_rows(3, 5, 16, torch.float32, "cpu")
    x = torch.randn(2, 15, 16, dtype=torch.float64)
    expected = naive_encoder.turn(x, naive_encoder.angles(3, 5, 16))
    torch.testing.assert_close(rotate(x[None].float(), rows)[0].double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_in_place_inference_equals_the_recorded_rotation_to_the_last_bit(dtype: torch.dtype) -> None:
    rows = compute_rows(3, 5, 16, dtype, "cpu").with_prefix(2).expand(2)
    x = torch.randn(2, 17, 3, 16).transpose(1, 2)  # as attention splits its heads
    before = x.clone()
    with torch.no_grad():
        quick = rotate(x, rows)
    assert torch.equal(quick, rotate(x, rows)) and quick.dtype == dtype
    assert torch.equal(x, before)


def test_scores_depend_on_the_distance_between_tokens() -> None:
    rows = compute_rows(1, 64, 32, torch.float32, "cpu")
    q, k = torch.randn(1, 1, 1, 32).expand(-1, -1, 64, -1), torch.randn(1, 1, 1, 32).expand(-1, -1, 64, -1)
    scores = (rotate(q, rows) @ rotate(k, rows).mT)[0, 0]
    for offset in (1, 5, 20):
        diagonal = scores.diagonal(offset)
        assert (diagonal - diagonal[0]).abs().max() < 1e-4
    assert (scores.diagonal(1)[0] - scores.diagonal(5)[0]).abs() > 1e-3


def test_prefix_rows_rotate_by_nothing() -> None:
    rows = compute_rows(2, 2, 16, torch.float32, "cpu").with_prefix(9)
    x = torch.randn(1, 2, 13, 16)
    assert torch.equal(rotate(x, rows)[:, :, :9], x[:, :, :9])
    assert not torch.allclose(rotate(x, rows)[:, :, 9:], x[:, :, 9:])


def test_bfloat16_table_differs_as_measured() -> None:
    """Exact coordinates on an axis of 64; at most 0.0026 off on one of 48 (specification 1.4)."""
    from sapiens2.model.rope import _coordinates

    exact = {n: 2 * (torch.arange(n, dtype=torch.float64) + 0.5) / n - 1 for n in (64, 48)}
    off = {n: (_coordinates(n, torch.bfloat16, "cpu").double() - exact[n]).abs().max().item() for n in exact}
    assert off[64] == 0
    assert 0.002 < off[48] < 0.00265
    rows = compute_rows(64, 48, 64, torch.bfloat16, "cpu")
    assert rows.cos.dtype == torch.bfloat16
    assert rotate(torch.randn(1, 1, 3072, 64), rows).dtype == torch.bfloat16


def test_tables_are_computed_once_and_bounded() -> None:
    tables = RopeTables(16, "float32")
    first = tables.rows(2, 3, torch.device("cpu"))
    assert tables.rows(2, 3, torch.device("cpu")).cos is first.cos
    for width in range(1, 40):
        tables.rows(1, width, torch.device("cpu"))
    assert len(tables._tables) <= 16
