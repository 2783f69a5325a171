"""What a labelled audit of an attribute changes in balance: caps and floors hold for the bins that a person would say.

The measured bin of a picture is wrong at times, and a cap on what was measured as frontal is no cap on frontal. From
labels it is known what share of each measured bin is truly which; so much of a picture counts toward each true bin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from curation.audit.confusion import Share, corrected
from curation.balance.allocation import UNKNOWN, Mixing
from curation.config import Config, recipe

Bins = NDArray[np.str_]


class Confusion(Config):
    """Labels of an attribute: of the pictures measured as bins[i], a person said bins[j] of counts[i][j]."""

    bins: tuple[str, ...] = recipe((), "names of the bins, measured or true")
    counts: tuple[tuple[int, ...], ...] = recipe((), "labelled pictures: row measured, column true, as counts")

    @model_validator(mode="after")
    def _square(self) -> Self:
        n = len(self.bins)
        if n == 0 or len(set(self.bins)) < n or [len(row) for row in self.counts] != [n] * n:
            raise ValueError(
                f"confusion needs a row and a column of counts for each of {list(self.bins)}; take the file that "
                f"`sapiens2 audit calibrate --out` writes"
            )
        if any(count < 0 for row in self.counts for count in row) or not np.any(self.counts):
            raise ValueError("confusion has counts below zero, or no label at all; label some pictures")
        return self

    def shares(self) -> dict[str, dict[str, float]]:
        """measured bin -> true bin -> share of it, of the measured bins with labels."""
        return {
            name: {true: count / sum(row) for true, count in zip(self.bins, row, strict=True)}
            for name, row in zip(self.bins, self.counts, strict=True)
            if sum(row)
        }

    def true_shares(self, bins: Bins) -> list[Share]:
        """The true shares, with 95 % intervals, of pictures with these measured bins.

        Pictures that were not measured, and are not labelled, are left out. Raises ValueError for another bin without
        labels.
        """
        names, counts = np.unique(bins, return_counts=True)
        known = self.shares()
        population = {
            name: int(count)
            for name, count in zip(names.tolist(), counts, strict=True)
            if name != UNKNOWN or name in known
        }
        strangers = sorted(population.keys() - set(self.bins))
        if strangers:
            raise ValueError(f"no picture of {strangers} was labelled, so their true bins are unknown; audit again")
        return corrected(np.array(self.counts), population, self.bins)


def mixing(confusion: Mapping[str, Confusion], attributes: Mapping[str, Bins]) -> Mixing:
    """axis -> measured bin -> true bin -> share. Raises ValueError, naming the axis, for a bin without labels."""
    for axis, audit in confusion.items():
        try:
            audit.true_shares(attributes[axis])
        except ValueError as error:
            raise ValueError(f"balance.confusion of {axis}: {error}") from error
    return {axis: audit.shares() for axis, audit in confusion.items()}


def bins_of(axis: str, bins: Bins, confusion: Mapping[str, Confusion]) -> list[str]:
    """The bins that caps and floors of an axis are for: those that occur, truly where that is known; never unknown."""
    if axis not in confusion:
        names = np.unique(bins).tolist()
    else:
        names = [share.bin for share in confusion[axis].true_shares(bins) if share.corrected > 0]
    return [name for name in names if name != UNKNOWN]


def told(
    confusion: Mapping[str, Confusion],
    provenance: Mapping[str, str],
    attributes: Mapping[str, Bins],
    keep: NDArray[np.bool_],
    caps: Mapping[str, float],
) -> dict[str, Any]:
    """For metrics: by axis the true shares before and after with 95 % intervals, and where they are known from.

    A true share may be above its cap within its interval: labels are a sample. `above_cap` names such bins.
    """
    found: dict[str, Any] = {}
    for axis, audit in confusion.items():
        before, after = audit.true_shares(attributes[axis]), audit.true_shares(attributes[axis][keep])
        found[axis] = {
            "before": {share.bin: _numbers(share) for share in before},
            "after": {share.bin: _numbers(share) for share in after},
            "above_cap": [s.bin for s in after if s.bin != UNKNOWN and s.high > caps.get(axis, 1.0)],
            "labels": int(np.sum(audit.counts)),
            "provenance": provenance.get(axis, "set by hand"),
        }
    return found


def _numbers(share: Share) -> dict[str, float]:
    names = ("measured", "corrected", "low", "high")
    return {name: round(getattr(share, name), 4) for name in names}
