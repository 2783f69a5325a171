"""Edges between pictures, from all the evidence there is: hashes, mirror hashes, copy descriptors, the pictures.

Strong evidence merges by itself (a hash within 4 bits, a descriptor over its threshold); weaker evidence only proposes,
and needs a second witness: the descriptor for a hash, the aligned pictures for either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curation.dedup.cells import Search as CellSearch
from curation.dedup.features import pair_cosines
from curation.dedup.geometry import Alignment, Picture, Sketch, align, sketch
from curation.dedup.hamming import MAX_RADIUS, Search, cross_pairs, hamming_pairs

Thumbnails = Callable[[list[str]], Mapping[str, Picture]]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
KINDS = ("phash", "mirror", "feature", "geometry")  # best evidence first
_BLOCK_PAIRS = 1024  # pictures of so many pairs are held at a time, about 0.5 MB each: bounds memory


@dataclass(frozen=True)
class Bounds:
    """Thresholds of the evidence; the fields of DedupConfig of the same names."""

    hash_radius: int
    hash_candidate_radius: int
    min_hash_quality: float
    centre: bool
    min_cosine: float
    hash_confirm_cosine: float
    candidate_cosine: float
    candidates_per_row: int
    exact_rows: int
    min_recall: float
    min_agreement: float
    min_correlation: float
    max_chain_hops: int


@dataclass(frozen=True)
class Pictures:
    """What is known of N pictures. `vectors` float32 [N, D], rows of zeros where there is no descriptor."""

    image_ids: list[str]
    phash: NDArray[np.uint64]
    mirror: NDArray[np.uint64]
    hash_quality: Floats
    vectors: NDArray[np.float32]

    def take(self, rows: Ints) -> Pictures:
        """The pictures of these rows."""
        ids = [self.image_ids[row] for row in rows.tolist()]
        return Pictures(ids, self.phash[rows], self.mirror[rows], self.hash_quality[rows], self.vectors[rows])


@dataclass(frozen=True)
class Edges:
    """`pairs` int64 [E, 2], i < j, each pair once; `kind` index into KINDS; `distance` as in curation.tables.EDGES."""

    pairs: Ints
    kind: Ints
    distance: Floats
    candidates: int  # pairs whose pictures were compared
    confirmed: int
    search: CellSearch | None = None  # how near descriptors were found; None: all pairs were compared


@dataclass(frozen=True)
class HashPairs:
    """Pairs of trusted hashes within 8 bits; `trusted` are the rows they were looked for among."""

    trusted: Ints
    near: Ints
    near_distance: Ints
    mirrored: Ints  # one's hash is near the other's mirror hash
    mirrored_distance: Ints


@dataclass(frozen=True)
class Near:
    """Pairs [E, 2], i < j, of near descriptors, and their cosines."""

    pairs: Ints
    cosine: Floats


@dataclass(frozen=True)
class _Part:
    pairs: Ints
    kind: int
    distance: Floats


def leaders(pictures: Pictures, quality: Floats, min_hash_quality: float) -> Ints:
    """For each row the best row with the same trusted hash and mirror hash: int64 [N], leaders name themselves.

    Such rows are one point of the graph. A picture with ten thousand copies then costs ten thousand comparisons, not
    fifty million, and does not look like percolation.
    """
    leader = np.arange(len(quality))
    trusted = np.flatnonzero(pictures.hash_quality >= min_hash_quality)
    by_worth = trusted[np.lexsort((trusted, -quality[trusted]))]
    codes = np.stack([pictures.phash[by_worth], pictures.mirror[by_worth]], axis=1)
    _, first, inverse = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    leader[by_worth] = by_worth[first][inverse.ravel()]
    return leader


def find_hash_pairs(pictures: Pictures, min_hash_quality: float, search: Search | None = None) -> HashPairs:
    """All pairs of trusted hashes up to distance 8, direct and mirrored, as `search` of hamming_pairs finds them."""
    trusted = np.flatnonzero(pictures.hash_quality >= min_hash_quality)
    i, j, distance = hamming_pairs(pictures.phash[trusted], MAX_RADIUS, search)
    near = trusted[np.stack([i, j], axis=1)]
    x, y, across = cross_pairs(pictures.phash[trusted], pictures.mirror[trusted], MAX_RADIUS, search)
    proper = x != y  # a symmetric picture is near its own mirror image
    mirrored = trusted[np.stack([np.minimum(x, y), np.maximum(x, y)], axis=1)[proper]]
    part = _once([_Part(mirrored, 1, across[proper].astype(np.float64))])
    return HashPairs(trusted, near, distance.astype(np.int64), part.pairs, part.distance.astype(np.int64))


@dataclass(frozen=True)
class Compared:
    """Pairs [E, 2], i < j, that were compared as pictures: whether they agreed, and the distance 1 - agreement."""

    pairs: Ints
    agreed: NDArray[np.bool_]
    distance: Floats


NONE_COMPARED = Compared(np.zeros((0, 2), np.int64), np.zeros(0, bool), np.zeros(0))


def weigh(
    unit: NDArray[np.float32],
    image_ids: list[str],
    hashes: HashPairs,
    near: Near,
    bounds: Bounds,
    thumbnails: Thumbnails | None,
    known: Compared = NONE_COMPARED,
) -> tuple[Edges, Compared]:
    """(edges, pairs compared as pictures) among the pairs whose hashes or descriptors are near.

    unit: the descriptors, of unit length. known: what an earlier comparison of pictures said, which is not repeated.
    """
    certain, suspected = _by_hash(unit, hashes, bounds)
    close = near.cosine >= bounds.min_cosine
    certain.append(_Part(near.pairs[close], 2, 1 - near.cosine[close]))
    suspected.append(near.pairs[~close])
    if thumbnails is None:
        return _once(certain), NONE_COMPARED
    asked = _undecided(suspected, certain, len(unit))
    compared = _compare(image_ids, asked, bounds, thumbnails, known)
    agreed = _Part(compared.pairs[compared.agreed], 3, compared.distance[compared.agreed])
    edges = replace(_once([*certain, agreed]), candidates=len(asked), confirmed=len(agreed.pairs))
    return edges, compared


def _by_hash(unit: NDArray[np.float32], hashes: HashPairs, bounds: Bounds) -> tuple[list[_Part], list[Ints]]:
    """(edges, suspected pairs): close hashes merge, less close ones and mirrored ones when the descriptor agrees.

    Flips are rare among copies, so of close mirror hashes a larger part is chance: two forks on two tables.
    """
    certain, suspected = [], []
    found = ((0, hashes.near, hashes.near_distance), (1, hashes.mirrored, hashes.mirrored_distance))
    for kind, pairs, distance in found:
        cosine = pair_cosines(unit, pairs[:, 0], pairs[:, 1])
        within = distance <= bounds.hash_candidate_radius
        merged = within & (cosine >= bounds.hash_confirm_cosine)
        if kind == 0:
            merged |= distance <= bounds.hash_radius
        certain.append(_Part(pairs[merged], kind, distance[merged].astype(np.float64)))
        suspected.append(pairs[within & ~merged])
    return certain, suspected


def _once(parts: list[_Part]) -> Edges:
    """One edge per pair, of the best kind and then the smallest distance."""
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *(part.pairs for part in parts)])
    kind = np.concatenate([np.zeros(0, np.int64), *(np.full(len(part.pairs), part.kind) for part in parts)])
    distance = np.concatenate([np.zeros(0), *(part.distance for part in parts)])
    order = np.lexsort((distance, kind, pairs[:, 1], pairs[:, 0]))
    pairs, kind, distance = pairs[order], kind[order], distance[order]
    first = np.ones(len(pairs), bool)
    first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return Edges(pairs[first], kind[first], distance[first], 0, 0)


def _undecided(suspected: list[Ints], certain: list[_Part], n: int) -> Ints:
    """Suspected pairs, each once, without those that are edges already."""
    decided = np.concatenate([part.pairs @ np.array([n, 1]) for part in certain])
    asked = np.concatenate([pairs @ np.array([n, 1]) for pairs in suspected])
    left = np.setdiff1d(asked, decided)
    return np.stack(np.divmod(left, max(n, 1)), axis=1).astype(np.int64)


def _compare(image_ids: list[str], asked: Ints, bounds: Bounds, thumbnails: Thumbnails, known: Compared) -> Compared:
    """What the pictures of each pair say. Pairs of which a picture cannot be had are left out."""
    n = np.array([len(image_ids), 1])
    remembered = np.isin(known.pairs @ n, asked @ n)
    pairs, agreed = known.pairs[remembered].tolist(), known.agreed[remembered].tolist()
    distance = known.distance[remembered].tolist()
    asked = asked[~np.isin(asked @ n, known.pairs @ n)]
    sketches: dict[int, Sketch] = {}
    for start in range(0, len(asked), _BLOCK_PAIRS):
        block = asked[start : start + _BLOCK_PAIRS]
        rows = set(block.ravel().tolist())
        sketches = {row: drawn for row, drawn in sketches.items() if row in rows}
        wanted = sorted(rows - sketches.keys())
        small = thumbnails([image_ids[row] for row in wanted])
        sketches |= {row: sketch(small[image_ids[row]]) for row in wanted if image_ids[row] in small}
        for a, b in block.tolist():
            if a in sketches and b in sketches:
                found = align(sketches[a], sketches[b])
                pairs.append([a, b])
                agreed.append(agrees(found, bounds))
                distance.append(1 - found.agreement)
    of = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    order = np.lexsort((of[:, 1], of[:, 0]))
    return Compared(of[order], np.array(agreed, dtype=bool)[order], np.array(distance, dtype=np.float64)[order])


def agrees(found: Alignment, bounds: Bounds) -> bool:
    """Whether an alignment shows one exposure."""
    return found.agreement >= bounds.min_agreement and found.correlation >= bounds.min_correlation
