"""A frozen backbone, probed: five dense tasks, and what single vectors tell, each with interval and baseline."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sapiens2.evaluation import semantic_probe as semantic
from sapiens2.evaluation.bootstrap import Estimate, Statistic, bootstrap
from sapiens2.evaluation.config import ProbeConfig
from sapiens2.evaluation.dense_probe import Decoder, answers, fit, output_grid, restored
from sapiens2.evaluation.frozen import Extractor, Features, extract
from sapiens2.evaluation.headline import Headline, headline
from sapiens2.evaluation.measure import MAIN, statistic_of
from sapiens2.evaluation.probe_scenes import SEMANTIC, SPLITS, ProbeScenes, targets
from sapiens2.evaluation.semantic_probe import Questions, Ratio
from sapiens2.evaluation.tables import in_columns

Array = np.ndarray
METRIC = {task: name for task, (name, _) in MAIN.items()} | {
    "pose_class": "accuracy",
    "colour": "R2",
    "keypoints": "PCK@0.1 body",
}
"""The metric of each probe, by its name up to the first dot."""


def higher_is_better(key: str) -> bool:
    """Whether more is better, for a key of a result."""
    return MAIN[key][1] if key in MAIN else True


@dataclass(frozen=True)
class ProbeResult:
    """What one backbone reaches on one split, by probe.

    Keys: the tasks; `pose_class.linear.V`, `pose_class.knn.V`, `colour.V`, `keypoints.V` for the vectors V: cls, mean.
    `printed`, on the test split alone: what the paper's table of dense probes prints, by the names of its columns.
    `per_image` holds the error of each scene, lower is better, NaN where it is undefined: dense probes over the split's
    scenes, the others over those of `probe_scenes.SEMANTIC`; scenes are the same for every backbone.
    """

    backbone: str
    split: str
    estimates: dict[str, Estimate]
    baseline: dict[str, float]
    per_image: dict[str, Array] = field(repr=False)
    printed: dict[str, Estimate] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def main(self) -> dict[str, float]:
        """The value of every probe."""
        return {key: estimate.value for key, estimate in self.estimates.items()}

    @property
    def higher_is_better(self) -> dict[str, bool]:
        """Whether more is better, by probe."""
        return {key: higher_is_better(key) for key in self.estimates}

    def gain(self, key: str) -> float:
        """The share of the baseline's error that the probe removes: 1 at best, 0 like the baseline."""
        ours, theirs = self.estimates[key].value, self.baseline[key]
        if higher_is_better(key):
            ours, theirs = 1 - ours, 1 - theirs
        return 1 - ours / theirs if theirs > 0 else 0.0

    @property
    def score(self) -> float:
        """What checkpoints are selected by: the mean gain over the dense tasks."""
        return float(np.mean([self.gain(key) for key in self.estimates if key in MAIN]))

    def table(self) -> list[list[str]]:
        """Rows of probe, metric, value with interval, baseline."""
        return [
            [key, METRIC[key.partition(".")[0]], estimate.text(), f"{self.baseline[key]:.3f}"]
            for key, estimate in self.estimates.items()
        ]


def probe_backbone(
    extractor: Extractor, config: ProbeConfig, *, scenes: ProbeScenes | None = None, split: str = "test"
) -> ProbeResult:
    """Fit every probe on the fitted scenes and measure it on a split, `val` or `test`.

    `scenes` made once with the same config serve many backbones. Deterministic given the seed and the CPU threads.
    """
    return FittedProbe(extractor, config, scenes or ProbeScenes(config)).measure(split)


@dataclass(frozen=True)
class Fitted:
    """What fitting has found: by task a decoder's state, by name the vectors [N, D] of the fitted scenes."""

    decoders: dict[str, dict[str, Array]] = field(repr=False)
    vectors: dict[str, Array] = field(repr=False)
    seconds: float


class FittedProbe:
    """All probes of one backbone, fitted; they can be measured on several splits."""

    def __init__(
        self, extractor: Extractor, config: ProbeConfig, scenes: ProbeScenes, before: Fitted | None = None
    ) -> None:
        """before: what fitting the same has found earlier, so that it need not be done again.

        Raises ValueError for a picture size that the backbone cannot take.
        """
        self.extractor, self.config, self.scenes = extractor, config, scenes
        self.grid = config.grid or extractor.grid(*config.image_size)
        self.decoders: dict[str, Decoder] = {}
        if before is None:
            self._fit()
            return
        self.decoders = {task: restored(task, before.decoders[task], config) for task in config.tasks}
        self.vectors, self.seconds = {name: array.copy() for name, array in before.vectors.items()}, before.seconds

    def _fit(self) -> None:
        began = time.perf_counter()
        features = self._features("fit")
        for task in self.config.tasks:
            labels = targets(task, self.scenes.fitted, output_grid(task, self.grid))
            self.decoders[task] = fit(task, features.patches, labels, self.config)
        self.vectors = _vectors(features)
        self.seconds = time.perf_counter() - began

    @cached_property
    def known(self) -> Questions:
        """The right answers on the fitted scenes."""
        return semantic.ask(self.scenes.fitted, self.scenes.classes("fit"))

    @property
    def fitted(self) -> Fitted:
        """All that is needed to have the same again."""
        states = {task: decoder.state_dict() for task, decoder in self.decoders.items()}
        arrays = {task: {name: t.cpu().numpy() for name, t in state.items()} for task, state in states.items()}
        return Fitted(arrays, self.vectors, self.seconds)

    def _features(self, name: str) -> Features:
        config = self.config
        return extract(
            self.extractor, self.scenes.images(name), self.grid, batch=config.extract_batch, half=config.half
        )

    def queries(self, images: Sequence[Array]) -> Array:
        """Class vectors [M, D] of other pictures of the same size."""
        return extract(self.extractor, images, self.grid, batch=self.config.extract_batch).cls.numpy()

    def measure(self, split: str) -> ProbeResult:
        """Every probe on `val` or `test`. Raises ValueError for another split."""
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; use one of {', '.join(SPLITS)}")
        began = time.perf_counter()
        features = self._features(split)
        dense, base, printed = self._dense(split, features)
        asked = features if SEMANTIC[split] == split else self._features(SEMANTIC[split])
        told, known = self._semantic(SEMANTIC[split], asked)
        estimates = self._estimates(dense, self.scenes.count(split))
        estimates |= self._estimates(told, self.scenes.count(SEMANTIC[split]))
        measured: dict[str, Headline | Ratio] = {**dense, **told}
        return ProbeResult(
            backbone=self.extractor.name,
            split=split,
            estimates=estimates,
            baseline=base | known,
            per_image={key: one.errors() for key, one in measured.items()},
            printed=printed,
            seconds=self.seconds + time.perf_counter() - began,
        )

    def _dense(
        self, split: str, features: Features
    ) -> tuple[dict[str, Headline], dict[str, float], dict[str, Estimate]]:
        found, base = {}, {}
        printed: dict[str, Estimate] = {}
        size, count = self.config.image_size, self.scenes.count(split)
        for task, decoder in self.decoders.items():
            given = list(answers(task, decoder, features.patches, size))
            found[task] = headline(task, given, self.scenes.samples(split))
            base[task] = self.scenes.baseline(task, split)
            if split == "test":
                told = statistic_of(task, given, self.scenes.samples(split))
                printed |= in_columns(task, self._sure(told, count))
        return found, base, printed

    def _semantic(self, name: str, features: Features) -> tuple[dict[str, Ratio], dict[str, float]]:
        asked = semantic.ask(list(self.scenes.samples(name)), self.scenes.classes(name))
        queries, found, base = _vectors(features), {}, {}
        whole = np.arange(len(asked.classes))
        for vector, x in self.vectors.items():
            y = queries[vector]
            told, common, _ = semantic.pose_classes(x, self.known, y, asked, self.config.neighbours)
            for kind, ratio in told.items():
                found[f"pose_class.{kind}.{vector}"] = ratio
                base[f"pose_class.{kind}.{vector}"] = common.value(whole)
            found[f"colour.{vector}"], base[f"colour.{vector}"] = semantic.colours(x, self.known, y, asked), 0.0
            found[f"keypoints.{vector}"], mean = semantic.joints(x, self.known, y, asked)
            base[f"keypoints.{vector}"] = mean.value(whole)
        return found, base

    def _estimates(self, measured: Mapping[str, Headline | Ratio], count: int) -> dict[str, Estimate]:
        return self._sure(lambda index: {key: one.value(index) for key, one in measured.items()}, count)

    def _sure(self, statistic: Statistic, count: int) -> dict[str, Estimate]:
        return bootstrap(statistic, count, rounds=self.config.rounds, seed=self.config.seed)


def _vectors(features: Features) -> dict[str, Array]:
    return {"cls": features.cls.numpy(), "mean": features.mean.numpy()}
