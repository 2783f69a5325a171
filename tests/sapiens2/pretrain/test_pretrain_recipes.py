"""Recipes: what their headers say they cost is computed again; small batches and later stages follow their rules."""

from __future__ import annotations

import inspect
import re

import pytest

from sapiens2.pretrain import recipes
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.cost import step_cost
from sapiens2.pretrain.recipe_names import RECIPES, recipe_named
from sapiens2.pretrain.small_batch import fewer_prototypes, for_batch, scaled_warmup

H200_45 = 0.45 * 989e12 * 86400  # FLOP in a day at the share of the datasheet that headers suppose
STATED = re.compile(r"([\w.-]+) ([\d.]+) TFLOP(?: an image)?, ([\d.e+]+) (FLOP|days)")


def stated() -> list[tuple[str, float, float, str]]:
    """(recipe, TFLOP per image, FLOP or days of the run, which of both) out of the headers."""
    text = " ".join(" ".join((inspect.getdoc(f) or "").split()) for _, f in inspect.getmembers(recipes, callable))
    return [(name, float(image), float(run), unit) for name, image, run, unit in STATED.findall(text)]


def test_every_large_recipe_states_its_cost() -> None:
    named = {name for name, *_ in stated()}
    assert {"0.1b", "0.4b", "0.8b", "1b", "5b", "1b-4k", "0.1b-256", "0.1b-512", "1b-2k-input"} <= named


@pytest.mark.parametrize(("name", "image", "run", "unit"), stated(), ids=lambda value: str(value))
def test_the_costs_in_the_headers_are_true(name: str, image: float, run: float, unit: str) -> None:
    config = RECIPES[name].make()
    flops = step_cost(config).total
    whole = flops * config.batch * config.engine.steps
    assert flops / 1e12 == pytest.approx(image, rel=5e-3)
    assert (whole if unit == "FLOP" else whole / H200_45) == pytest.approx(run, rel=5e-3)


def test_an_hour_and_nine_days() -> None:
    """The times in the headers of `small` and `continued`, from the FLOPs checked above."""
    assert pytest.approx(0.91, abs=0.005) == 8.07e17 / (0.25 * 989e12) / 3600
    assert pytest.approx(9.0, abs=0.05) == 3.47e20 / H200_45


def test_names_are_listed_when_one_is_unknown() -> None:
    with pytest.raises(ValueError, match=r"unknown recipe '2b'; choose one of micro, tiny, 0\.1b-256"):
        recipe_named("2b")
    assert all(isinstance(recipe.make(), PretrainConfig) for recipe in RECIPES.values())


def test_small_batches() -> None:
    paper = recipes.paper("0.1b")
    small = for_batch(paper.model_copy(update={"batch": 64}))
    assert small.centring == "sinkhorn" and small.prototypes == 1024
    assert small.ema == pytest.approx(0.992 ** (64 / 1536))
    assert small.ema ** (1536 / 64) == pytest.approx(0.992)  # as far back in images
    large = for_batch(paper.model_copy(update={"batch": 256}))
    assert (large.centring, large.ema, large.prototypes) == (paper.centring, paper.ema, paper.prototypes)
    assert [fewer_prototypes(batch) for batch in (8, 64, 128, 255)] == [1024, 1024, 2048, 4080]


def test_warm_up_and_freeze_fit_the_run() -> None:
    assert [scaled_warmup(steps) for steps in (1, 10, 200, 8000, 500_000)] == [0, 1, 10, 400, 1000]
    engine = recipes.paper().engine.model_copy(update={"steps": 200})
    short = for_batch(recipes.paper().model_copy(update={"engine": engine}))
    assert short.engine.warmup_steps == short.freeze_prototypes_steps == short.teacher_temperature_steps == 10


def test_the_curriculum_doubles_the_side() -> None:
    first = recipes.small()
    second = recipes.enlarged(first)
    assert first.image_size == (256, 192) and second.image_size == (512, 384) and second.local_size == (256, 192)
    assert second.kept == second.local_tokens == 4 * first.kept and second.engine.steps == first.engine.steps // 4


def test_both_readings_of_the_2k_phase() -> None:
    run, large = recipes.paper("1b"), recipes.paper("1b", window_tokenizer=True)
    into, out = recipes.input_2k(run), recipes.output_2k(large)
    assert into.image_size == (2048, 1536) and into.grid == (128, 96) and into.target_patch == 16
    assert out.image_size == (4096, 3072) and out.grid == (64, 48)
    assert (out.grid[0] * out.target_patch, out.grid[1] * out.target_patch) == (2048, 1536)
    for phase, before in ((into, run), (out, large)):
        assert phase.contrastive_weight == phase.koleo_weight == 0 and phase.mae_weight == 1
        assert phase.knn_check and not before.knn_check
        assert phase.engine.steps == before.engine.steps // 50
        assert phase.engine.lr == pytest.approx(before.engine.lr / 10) and phase.engine.warmup_steps == 500
    with pytest.raises(ValueError, match="2K output is a phase of the 4K model"):
        recipes.output_2k(run)
