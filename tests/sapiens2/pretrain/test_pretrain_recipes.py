"""Recipes: what their headers say they cost is computed again; small batches and later stages follow their rules."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from sapiens2.pretrain import recipe_costs, recipes
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.cost import step_cost
from sapiens2.pretrain.recipe_names import RECIPES, recipe_named
from sapiens2.pretrain.small_batch import fewer_prototypes, for_batch, scaled_warmup

STATED = recipe_costs.stated(Path(recipes.__file__).read_text())
DATASHEET = 989e12  # dense 16-bit FLOP/s of an H200


def test_every_recipe_states_its_cost() -> None:
    assert STATED.keys() == RECIPES.keys()
    headers = [inspect.getdoc(made) or "" for _, made in inspect.getmembers(recipes, inspect.isfunction)]
    for told in STATED.values():
        (header,) = (text for text in headers if told in text)
        assert header.index(recipe_costs.HEADING) < header.index(told)


@pytest.mark.parametrize("name", RECIPES)
def test_the_costs_in_the_headers_are_true(name: str) -> None:
    """FLOPs, images and days; the memory of some is held in test_pretrain_memory.py."""
    assert STATED[name].startswith(recipe_costs.arithmetic(name)), "python -m sapiens2.pretrain.recipe_costs"


def test_what_a_row_says() -> None:
    """The row of a curriculum's first stage by hand: an hour of one GPU at a quarter of its datasheet."""
    name, image, run, seen, unit, gpus, share, days, at_a_time, memory = STATED["0.1b-256"].split()
    assert (name, seen, unit, gpus, share, at_a_time) == ("0.1b-256", "2.048", "M", "1", "25%", "256")
    assert float(image) == pytest.approx(step_cost(recipes.small()).total / 1e12, rel=5e-3)
    assert float(run) == pytest.approx(float(image) * 1e12 * 2.048e6, rel=5e-3)
    assert float(days) == pytest.approx(float(run) / (0.25 * DATASHEET) / 86400, rel=5e-3)
    assert 0.85 < float(days) * 24 < 1.0 and 1 < float(memory) < 139


def test_recipes_for_gpus_compile_their_blocks() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.make().engine.compile == (recipe.plan.gpus > 0), name


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
