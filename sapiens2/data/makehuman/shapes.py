"""Bodies of different build: mixtures of MakeHuman's shape targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sapiens2.data.makehuman.files import read_target

Array = np.ndarray
MACRO = "mpfb/targets/macrodetails"
_PEOPLE = ("african", "asian", "caucasian")
_AMOUNTS = ("min", "average", "max")


class Shapes:
    """The targets of a folder, read at first use. Those that are not there change nothing."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder / MACRO, count
        self._read: dict[str, Array] = {}

    def draw(self, rng: np.random.Generator, female: bool) -> Array:
        """Displacements [count, 3] of a random grown body: descent, muscle, weight and height."""
        sex = "female" if female else "male"
        people = rng.dirichlet(np.full(len(_PEOPLE), 0.4))
        muscle, weight, height = np.clip(rng.normal(0, (0.4, 0.4, 0.4)), -1, 1)
        out = sum((k * self._target(f"{who}-{sex}-young") for who, k in zip(_PEOPLE, people)), np.zeros((1, 3)))
        for m, a in _blend(muscle):
            for w, b in _blend(weight):
                out = out + a * b * self._target(f"universal-{sex}-young-{m}muscle-{w}weight")
        tall = "max" if height > 0 else "min"
        return out + abs(height) * self._target(f"height/{sex}-young-averagemuscle-averageweight-{tall}height")

    def _target(self, name: str) -> Array:
        if name not in self._read:
            path = self.folder / f"{name}.target.gz"
            self._read[name] = read_target(path, self.count) if path.exists() else np.zeros((self.count, 3))
        return self._read[name]


def _blend(value: float) -> list[tuple[str, float]]:
    """Shares of the two neighbours of a value from -1 (min) to 1 (max)."""
    end = _AMOUNTS[2] if value > 0 else _AMOUNTS[0]
    return [(_AMOUNTS[1], 1 - abs(value)), (end, abs(value))]
