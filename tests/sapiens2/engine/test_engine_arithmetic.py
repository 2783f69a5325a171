"""A processor that does bfloat16 slowly is told of, and measuring it disturbs nothing."""

from __future__ import annotations

import logging

import pytest
import torch

from sapiens2.engine import arithmetic
from sapiens2.engine.config import EngineConfig

CPU = torch.device("cpu")


def test_measuring_draws_no_random_number_and_finds_one_of_two() -> None:
    before = torch.get_rng_state()
    assert arithmetic.bf16_over_fp32() > 0
    assert torch.equal(before, torch.get_rng_state())
    assert arithmetic.faster() in ("fp32", "bf16")


@pytest.mark.parametrize(
    ("ratio", "precision", "device", "told"),
    [
        (8.0, "bf16", CPU, True),
        (0.5, "bf16", CPU, False),
        (8.0, "fp32", CPU, False),
        (8.0, "bf16", torch.device("cuda"), False),
    ],
)
def test_slow_bfloat16_is_told_of_where_it_is_asked_for(
    ratio: float,
    precision: str,
    device: torch.device,
    told: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(arithmetic, "bf16_over_fp32", lambda: ratio)
    with caplog.at_level(logging.WARNING):
        arithmetic.warn_of_slow_bf16(EngineConfig(steps=2, warmup_steps=0, precision=precision), device)
    assert ("8.0 times" in caplog.text and "engine.precision=fp32" in caplog.text) == told
