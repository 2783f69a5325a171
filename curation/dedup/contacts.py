"""Which pictures are copies of pictures that lie elsewhere: a pool against the evaluation sets it must stay apart from.

The evidence is that of the pool itself (curation.dedup.evidence); only pairs of a picture and a reference are looked
at. Every descriptor is compared with every reference, so that nothing is missed for the sake of speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.dedup.evidence import Bounds, HashPairs, Near, Picture, Pictures, Thumbnails, weigh
from curation.dedup.features import SLACK, mean_row, pair_cosines, unit_rows
from curation.dedup.hamming import MAX_RADIUS
from curation.dedup.hamming_across import pairs_across

Ints = NDArray[np.int64]
_COSINES = 1 << 25  # held at a time: bounds memory, 128 MB
_MARK = "reference "  # before the id of a reference, which may be that of a picture of the pool


@dataclass(frozen=True)
class Contacts:
    """One entry for each picture and reference that are copies: `row`, `reference`, `kind` in KINDS, `distance`."""

    row: Ints
    reference: Ints
    kind: Ints
    distance: NDArray[np.float64]


def contacts(
    pictures: Pictures,
    references: Pictures,
    bounds: Bounds,
    thumbnails: Thumbnails | None = None,
    reference_thumbnails: Thumbnails | None = None,
) -> Contacts:
    """Every picture that is a copy of a reference, by hash, mirror hash, descriptor, or the pictures themselves.

    A reference proposes its bounds.candidates_per_row nearest pictures for a comparison; above bounds.min_cosine all
    count. Descriptors are centred on the pictures' mean. Raises ValueError when the descriptors differ in width.
    """
    n = len(pictures.image_ids)
    if pictures.vectors.shape[1] != references.vectors.shape[1]:
        raise ValueError(
            f"references have descriptors of {references.vectors.shape[1]} numbers, the pictures "
            f"{pictures.vectors.shape[1]}: describe both with one copy descriptor"
        )
    mean = mean_row(pictures.vectors) if bounds.centre else None
    unit = unit_rows(np.concatenate([pictures.vectors, references.vectors]), mean=mean)
    seen = thumbnails is not None and reference_thumbnails is not None
    near = _near(unit, n, bounds, bounds.candidate_cosine if seen else bounds.min_cosine)
    both = _of_both(thumbnails, reference_thumbnails) if thumbnails and reference_thumbnails else None
    ids = [*pictures.image_ids, *(f"{_MARK}{name}" for name in references.image_ids)]
    edges, _ = weigh(unit, ids, _hashes(pictures, references, bounds), near, bounds, both)
    return Contacts(edges.pairs[:, 0], edges.pairs[:, 1] - n, edges.kind, edges.distance)


def _of_both(pool: Thumbnails, others: Thumbnails) -> Thumbnails:
    def thumbnails(ids: list[str]) -> Mapping[str, Picture]:
        marked = [name for name in ids if name.startswith(_MARK)]
        found = others([name.removeprefix(_MARK) for name in marked])
        ours = pool([name for name in ids if not name.startswith(_MARK)])
        return {**ours, **{f"{_MARK}{name}": picture for name, picture in found.items()}}

    return thumbnails


def _hashes(pictures: Pictures, references: Pictures, bounds: Bounds) -> HashPairs:
    trusted = np.flatnonzero(pictures.hash_quality >= bounds.min_hash_quality)
    others = np.flatnonzero(references.hash_quality >= bounds.min_hash_quality)
    few, n = references.phash[others], len(pictures.image_ids)
    found = []
    for codes in (pictures.phash, pictures.mirror):
        reference, row, distance = pairs_across(few, codes[trusted], MAX_RADIUS)
        pairs = np.stack([trusted[row], n + others[reference]], axis=1)
        found.append((pairs, distance.astype(np.int64)))
    (near, near_distance), (mirrored, mirrored_distance) = found
    return HashPairs(np.concatenate([trusted, n + others]), near, near_distance, mirrored, mirrored_distance)


def _near(unit: NDArray[np.float32], n: int, bounds: Bounds, loose: float) -> Near:
    """Of each reference all rows at bounds.min_cosine, and its nearest rows down to `loose`."""
    rows, others = unit[:n], unit[n:]
    pairs = [np.zeros((0, 2), np.int64)]
    if n and len(others):
        k, block = min(bounds.candidates_per_row, n), max(1, _COSINES // n)
        for start in range(0, len(others), block):
            cosine = others[start : start + block] @ rows.T
            nearest = np.argpartition(cosine, n - k, axis=1)[:, n - k :]
            wanted = np.zeros(cosine.shape, bool)
            np.put_along_axis(wanted, nearest, np.take_along_axis(cosine, nearest, axis=1) >= loose - SLACK, axis=1)
            reference, row = np.nonzero(wanted | (cosine >= bounds.min_cosine - SLACK))
            pairs.append(np.stack([row, n + start + reference], axis=1))
    found = np.concatenate(pairs)
    exact = pair_cosines(unit, found[:, 0], found[:, 1])
    return Near(found[exact >= loose], exact[exact >= loose])
