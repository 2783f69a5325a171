"""Results by what makes pictures hard: how many people are in them, and how much of a person is hidden.

People are the rows of the index on the same picture. Occlusion is the share of a person's body keypoints that are
labelled but hidden (visibility 1); of a picture with several people, of all of them. Pictures of which neither is known
belong to no bin.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sapiens2.data.labelled.layout import Row
from sapiens2.data.synthetic import Scene
from sapiens2.evaluation.bootstrap import Estimate, bootstrap
from sapiens2.evaluation.headline import Headline
from sapiens2.tasks.vocabulary import keypoints

Array = np.ndarray
PEOPLE = ((1, "1"), (2, "2"), (5, "3 to 5"), (np.inf, "6 and more"))
OCCLUSION = (
    (0.0, "nothing hidden"),
    (0.25, "up to 25 % hidden"),
    (0.5, "25 to 50 % hidden"),
    (1.0, "over 50 % hidden"),
)
Bins = dict[str, list[str | None]]
"""Axis -> the bin of each sample, None where it is not known."""


def hidden_share(visibility: Iterable[Array]) -> float | None:
    """Hidden among the labelled body keypoints of some people, visibility [308] each; None where none is labelled."""
    body = keypoints().group("body")
    values = np.concatenate([np.asarray(v)[body] for v in visibility] or [np.zeros(0)])
    labelled = int((values > 0).sum())
    return float((values == 1).sum() / labelled) if labelled else None


def _bin(value: float | None, edges: Sequence[tuple[float, str]]) -> str | None:
    return None if value is None else next(name for limit, name in edges if value <= limit)


def scene_bins(scenes: Iterable[Scene]) -> Bins:
    """Of rendered scenes, which hold one person each."""
    return {"occlusion": [_bin(hidden_share([scene.visibility]), OCCLUSION) for scene in scenes]}


def row_bins(rows: Sequence[Row], everything: Sequence[Row], task: str) -> Bins:
    """Of the rows that are measured; `everything` are all rows of the index, whatever they are labelled for."""
    people: dict[str, list[Row]] = defaultdict(list)
    for row in everything:
        if row.keypoints is not None or row.box is not None:
            people[row.image].append(row)
    bins: Bins = {"people": [], "occlusion": []}
    for row in rows:
        here = people.get(row.image, [])
        bins["people"].append(_bin(len(here) or None, PEOPLE))
        own = [row] if task == "pose" else here
        seen = [each.keypoints[:, 2] for each in own if each.keypoints is not None]
        bins["occlusion"].append(_bin(hidden_share(seen), OCCLUSION))
    return bins


@dataclass(frozen=True)
class Stratum:
    """The headline metric on the samples of a bin."""

    axis: str
    name: str
    samples: int
    model: Estimate
    baseline: Estimate
    picture: Estimate | None = None


def by_stratum(
    bins: Bins, model: Headline, baseline: Headline, picture: Headline | None = None, *, rounds: int, seed: int
) -> list[Stratum]:
    """Bins with samples, in the order of their axes; an axis of which only one bin has any is left out.

    picture: the picture itself as an answer, a second baseline.
    """
    judged = [model, baseline, *([] if picture is None else [picture])]
    order = {"people": [name for _, name in PEOPLE], "occlusion": [name for _, name in OCCLUSION]}
    out = []
    for axis, names in order.items():
        found = [(name, np.flatnonzero([b == name for b in bins.get(axis, [])])) for name in names]
        filled = [(name, index) for name, index in found if len(index)]
        for name, index in filled if len(filled) > 1 else []:
            out.append(Stratum(axis, name, len(index), *(_estimate(h, index, rounds, seed) for h in judged)))
    return out


def _estimate(judged: Headline, index: Array, rounds: int, seed: int) -> Estimate:
    found = bootstrap(lambda drawn: {"main": judged.value(index[drawn])}, len(index), rounds=rounds, seed=seed)
    return found["main"]
