"""Whether a phase of pretraining costs what the class token knew: k-NN of pose classes before and after it.

The rule: it got worse where the 95 % interval of the paired difference of the accuracies lies wholly below 0. Both
backbones see the same synthetic people; the asked ones wear patterns and stand before backgrounds that are not known.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from sapiens2.evaluation.bootstrap import bootstrap
from sapiens2.evaluation.config import ProbeConfig
from sapiens2.evaluation.frozen import Extractor, extract
from sapiens2.evaluation.probe_scenes import ProbeScenes
from sapiens2.evaluation.semantic_probe import vote

Pixels = tuple[int, int]
Array = np.ndarray
KNOWN, ASKED = 512, 512  # scenes
CELLS = (16, 12)  # tokens of a picture: what is compared are the networks, at a size that costs little
NEIGHBOURS = 10
ROUNDS = 1000
BATCH = 16


@dataclass(frozen=True)
class KnnCheck:
    """Share of pose classes that k-NN tells by the class token, 0 to 1; the difference with its 95 % interval."""

    before: float
    after: float
    difference: float
    low: float
    high: float
    scenes: int

    @property
    def verdict(self) -> Literal["worse", "even", "better"]:
        """By the rule of this module."""
        return "worse" if self.high < 0 else "better" if self.low > 0 else "even"

    def told(self) -> dict[str, Any]:
        """Numbers and verdict by name."""
        return asdict(self) | {"verdict": self.verdict}

    def text(self) -> str:
        """One line for a person."""
        interval = f"{self.difference:+.3f} ({self.low:+.3f} to {self.high:+.3f})"
        return f"{self.before:.3f} -> {self.after:.3f}, {interval} on {self.scenes} scenes: {self.verdict}"


def scenes_for(stride: int, image_size: Pixels) -> ProbeScenes:
    """The scenes of a check, of 16 x 12 tokens of `stride` pixels or of the training's size where that is smaller."""
    height, width = (min(cells * stride, side) for cells, side in zip(CELLS, image_size, strict=True))
    return ProbeScenes(ProbeConfig(n_train=KNOWN, n_test=ASKED, image_size=(height, width)))


def knn_check(before: Extractor, after: Extractor, scenes: ProbeScenes, *, seed: int = 0) -> KnnCheck:
    """Hold two backbones against each other; `scenes` are known ones (`fit`) and asked ones (`transfer`)."""
    names = sorted(set(scenes.classes("fit")))
    known = np.array([names.index(name) for name in scenes.classes("fit")])
    truth = np.array([names.index(name) if name in names else -1 for name in scenes.classes("transfer")])
    pictures = [scenes.images("fit"), scenes.images("transfer")]
    first, second = (_right(backbone, pictures, known, truth, len(names)) for backbone in (before, after))

    def statistic(index: Array) -> dict[str, float]:
        return {"difference": float((second[index] - first[index]).mean())}

    found = bootstrap(statistic, len(truth), rounds=ROUNDS, seed=seed)["difference"]
    return KnnCheck(float(first.mean()), float(second.mean()), found.value, found.low, found.high, len(truth))


def _right(backbone: Extractor, pictures: list[list[Array]], known: Array, truth: Array, classes: int) -> Array:
    """1 for each asked scene whose class k-NN tells, else 0; float [M]."""
    fitted, asked = (extract(backbone, images, None, batch=BATCH).cls.numpy() for images in pictures)
    return (vote(asked, fitted, known, classes, NEIGHBOURS) == truth).astype(float)
