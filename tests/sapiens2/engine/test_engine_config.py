"""Engine settings are checked before anything is allocated, and the schedule is what the formula says."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from sapiens2.config import Config, execution, recipe
from sapiens2.engine.config import EngineConfig, recipe_of
from sapiens2.engine.schedule import learning_rate


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"min_lr": 1.0}, "lower min_lr"),
        ({"steps": 10, "warmup_steps": 10}, "set warmup_steps below 10"),
        ({"betas": (0.9, 1.0)}, "must both lie in"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"learning_rate": 1e-3}, "Extra inputs"),
    ],
)
def test_bad_settings_are_refused_with_the_mend(settings: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        EngineConfig(**settings)


def test_recipe_leaves_out_execution_fields_at_every_depth() -> None:
    class Outer(Config):
        engine: EngineConfig = recipe(EngineConfig(), "Engine.")
        workers: int = execution(2, "Processes.")

    chosen = recipe_of(Outer(engine=EngineConfig(lr=2e-4, threads=3)))
    assert set(chosen) == {"engine"}
    assert chosen["engine"]["lr"] == 2e-4 and chosen["engine"]["betas"] == [0.9, 0.95]
    assert not set(chosen["engine"]) & {"threads", "device", "checkpoint_every", "log_every", "micro_batches"}


def test_schedules_at_their_landmarks() -> None:
    cosine = EngineConfig(steps=111, warmup_steps=10, lr=1e-3, min_lr=1e-5)
    assert learning_rate(0, cosine) == pytest.approx(1e-4)
    assert learning_rate(9, cosine) == learning_rate(10, cosine) == 1e-3
    assert learning_rate(60, cosine) == pytest.approx((1e-3 + 1e-5) / 2)
    assert learning_rate(35, cosine) == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 + math.sqrt(0.5)) / 2)
    assert learning_rate(110, cosine) == pytest.approx(1e-5)
    poly = cosine.model_copy(update={"schedule": "poly", "poly_power": 2.0, "min_lr": 0.0})
    assert learning_rate(60, poly) == pytest.approx(1e-3 / 4)
    assert learning_rate(110, poly) == 0.0
