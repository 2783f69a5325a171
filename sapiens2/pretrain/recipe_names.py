"""The recipes by the names under which a user chooses one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sapiens2.model.sizes import SizeName
from sapiens2.pretrain import recipes
from sapiens2.pretrain.config import PretrainConfig

LARGE: tuple[SizeName, ...] = ("0.1b", "0.4b", "0.8b", "1b", "5b")


@dataclass(frozen=True)
class Recipe:
    """A named recipe; `starts_from` says which weights it continues, and is empty for a run from scratch."""

    make: Callable[[], PretrainConfig]
    summary: str
    starts_from: str = ""


def _named() -> dict[str, Recipe]:
    found = {
        "micro": Recipe(recipes.micro, "two steps that walk the whole path, for tests"),
        "tiny": Recipe(recipes.demo, "minutes on a CPU; the demo's"),
        "0.1b-256": Recipe(recipes.small, "256 x 192, one GPU, about an hour"),
        "0.1b-512": Recipe(
            lambda: recipes.enlarged(recipes.small()), "second stage of a curriculum, 512 x 384", "0.1b-256"
        ),
        "0.1b-1024": Recipe(
            lambda: recipes.enlarged(recipes.enlarged(recipes.small())), "third stage, 1024 x 768", "0.1b-512"
        ),
    }
    for size in LARGE:
        found[size] = Recipe(lambda size=size: recipes.paper(size), "the paper's")  # type: ignore[misc]
    found["1b-4k"] = Recipe(lambda: recipes.paper("1b", window_tokenizer=True), "the paper's at 4096 x 3072")
    found["1b-2k-input"] = Recipe(
        lambda: recipes.input_2k(recipes.paper("1b")), "2K phase: 2048 x 1536 into the 1K encoder", "1b"
    )
    found["1b-2k-output"] = Recipe(
        lambda: recipes.output_2k(recipes.paper("1b", window_tokenizer=True)),
        "2K phase: 2048 x 1536 out of the 4K model",
        "1b-4k",
    )
    for size in LARGE:
        made = lambda size=size: recipes.continued(size)  # noqa: E731
        found[f"{size}-continued"] = Recipe(made, "from released weights, with a short re-warm", f"{size} weights")
    return found


RECIPES: dict[str, Recipe] = _named()


def recipe_named(name: str) -> Recipe:
    """The recipe of that name; raises ValueError with the names that there are."""
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
