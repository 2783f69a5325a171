"""The recipes by the names under which a user chooses one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sapiens2.model.sizes import SizeName
from sapiens2.pretrain import recipes
from sapiens2.pretrain.config import PretrainConfig

LARGE: tuple[SizeName, ...] = ("0.1b", "0.4b", "0.8b", "1b", "5b")


# Shares of the datasheet that are aimed at on H200s; none was measured yet.
TARGET_MFU: dict[SizeName, float] = {"0.1b": 0.33, "0.4b": 0.40, "0.8b": 0.42, "1b": 0.45, "5b": 0.38}
_AT_A_TIME: dict[SizeName, int] = {"0.1b": 24, "0.4b": 12, "0.8b": 8, "1b": 8, "5b": 4}


@dataclass(frozen=True)
class Plan:
    """Where a recipe's header supposes the run: on so many H200s (0: on a CPU), each reaching a share of its
    datasheet's FLOP/s, with so many images of a micro-batch."""

    gpus: int
    mfu: float
    images: int


@dataclass(frozen=True)
class Recipe:
    """A named recipe; `starts_from` says which weights it continues, and is empty for a run from scratch."""

    make: Callable[[], PretrainConfig]
    summary: str
    plan: Plan
    starts_from: str = ""


def _named() -> dict[str, Recipe]:
    found = {
        "micro": Recipe(recipes.micro, "two steps that walk the whole path, for tests", Plan(0, 0, 4)),
        "tiny": Recipe(recipes.demo, "minutes on a CPU; the demo's", Plan(0, 0, 8)),
        "0.1b-256": Recipe(recipes.small, "256 x 192, one GPU, about an hour", Plan(1, 0.25, 256)),
        "0.1b-512": Recipe(
            lambda: recipes.enlarged(recipes.small()),
            "second stage of a curriculum, 512 x 384",
            Plan(1, 0.25, 64),
            "0.1b-256",
        ),
        "0.1b-1024": Recipe(
            lambda: recipes.enlarged(recipes.enlarged(recipes.small())),
            "third stage, 1024 x 768",
            Plan(1, TARGET_MFU["0.1b"], 16),
            "0.1b-512",
        ),
    }
    for size in LARGE:
        plan = Plan(64, TARGET_MFU[size], _AT_A_TIME[size])
        found[size] = Recipe(lambda size=size: recipes.paper(size), "the paper's", plan)  # type: ignore[misc]
    large = Plan(64, TARGET_MFU["1b"], 8)
    found["1b-4k"] = Recipe(lambda: recipes.paper("1b", window_tokenizer=True), "the paper's at 4096 x 3072", large)
    found["1b-2k-input"] = Recipe(
        lambda: recipes.input_2k(recipes.paper("1b")), "2K phase: 2048 x 1536 into the 1K encoder", large, "1b"
    )
    found["1b-2k-output"] = Recipe(
        lambda: recipes.output_2k(recipes.paper("1b", window_tokenizer=True)),
        "2K phase: 2048 x 1536 out of the 4K model",
        large,
        "1b-4k",
    )
    for size in LARGE:
        made = lambda size=size: recipes.continued(size)  # noqa: E731
        plan = Plan(8, TARGET_MFU[size], min(_AT_A_TIME[size], 8))
        told = "from released weights, with a short re-warm"
        found[f"{size}-continued"] = Recipe(made, told, plan, f"{size} weights")
    return found


RECIPES: dict[str, Recipe] = _named()


def recipe_named(name: str) -> Recipe:
    """The recipe of that name; raises ValueError with the names that there are."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
