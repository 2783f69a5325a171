"""dedup: which pictures are copies of each other, and which of them stays.

Hashes, mirror hashes and copy descriptors give edges; pairs that they only suspect are compared as pictures. A greedy
best-first cover of the edges keeps the best picture and one kept neighbour for each that it drops.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import model_validator

from curation.config import Config, execution, recipe
from curation.dedup.carried import Carried
from curation.dedup.cover import Cover, cover_copies
from curation.dedup.evidence import (
    KINDS,
    Bounds,
    Edges,
    Pictures,
    Thumbnails,
)
from curation.dedup.hamming import Search
from curation.dedup.representatives import groups
from curation.models.copy_descriptor import DIMS
from curation.stages.dedup_apart import apart_metrics, apart_section, keep_apart
from curation.stages.dedup_previous import THRESHOLD, carried_tables
from curation.stages.dedup_references import References
from curation.stages.dedup_report import fragment
from curation.stages.measures import floats, largest_person_px, rows_for, sorted_by_id, vectors_for
from curation.stages.result import StageResult, decision_metrics
from curation.tables import DEDUPED, EDGES, require_columns

__all__ = ["DedupConfig", "Thumbnails", "profile_config", "run"]


_MOBILENET_COSINE = 0.99  # at 0.98 up to one pair in six is of strangers: benchmarks/results/curation_copies.md


class DedupConfig(Config):
    """When two pictures are one."""

    hash_radius: int = recipe(4, "perceptual hashes this close merge by themselves, in bits", ge=0, le=8)
    hash_candidate_radius: int = recipe(8, "hashes this close merge with a second witness, in bits", ge=0, le=8)
    min_hash_quality: float = recipe(0.5, "hashes of lower quality are not compared, 0..1", ge=0, le=1)
    descriptor: Literal["builtin", "mobilenet", "sscd"] | None = recipe(
        None, "copy descriptor that the cosines below were fitted for, by name; none: not checked"
    )
    centre: bool = recipe(False, "whether the mean descriptor is subtracted first, as mobilenet needs it, yes or no")
    min_cosine: float = recipe(0.70, "copy descriptors this close merge by themselves, as a cosine", gt=0, le=1)
    hash_confirm_cosine: float = recipe(0.55, "a descriptor this close confirms a hash, as a cosine", gt=0, le=1)
    candidate_cosine: float = recipe(0.36, "descriptors this close are compared as pictures, as a cosine", gt=0, le=1)
    candidates_per_row: int = recipe(16, "nearest descriptors of a picture that are looked at, as a count", ge=1)
    exact_rows: int = recipe(50_000, "up to so many pictures every two descriptors are compared, as a count", ge=1)
    min_recall: float = recipe(
        0.985, "share of near descriptors that must be found above that, by a brute-force sample, 0..1", ge=0, lt=1
    )
    min_agreement: float = recipe(0.87, "share of the texture that agrees once aligned, 0..1", ge=0, le=1)
    min_correlation: float = recipe(0.95, "correlation of the aligned pictures, 0..1", ge=0, le=1)
    min_person_score: float = recipe(0.3, "box score that counts when persons rank copies, 0..1", ge=0, le=1)
    overlay_ratio: float = recipe(0.02, "text share from which a picture ranks as overlaid, 0..1", ge=0, le=1)
    max_chain_hops: int = recipe(32, "longest accepted chain of hashes, in steps", ge=1)
    previous: str = recipe(
        "",
        "version of `deduped` to go on from, VERSION or deduped=NAME: its cells are used, what it compared is not "
        "compared again, and its thresholds must be these (see docs/duplicates.md)",
    )
    apart_from: tuple[str, ...] = execution(
        (),
        "evaluation sets whose copies go, with their whole groups: absolute folders, .tar or .parquet of pictures, or "
        "Parquet tables of features (see docs/duplicates.md); content counts",
    )
    shuffle_from: int = execution(
        20_000_000, "from so many pictures hashes are compared by a Ray shuffle, not in one process, as a count", ge=1
    )

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.hash_radius > self.hash_candidate_radius:
            raise ValueError(
                f"hash_radius={self.hash_radius} is above hash_candidate_radius={self.hash_candidate_radius}; raise "
                f"the latter"
            )
        relative = [uri for uri in self.apart_from if "://" not in uri and not uri.startswith("/")]
        if relative:
            raise ValueError(
                f"apart_from={relative[0]!r} is relative: steps run in folders of their own, give it absolute"
            )
        if not self.candidate_cosine <= self.min_cosine:
            raise ValueError(
                f"candidate_cosine={self.candidate_cosine} is above min_cosine={self.min_cosine}; lower the former"
            )
        least = min(self.min_cosine, self.hash_confirm_cosine)
        if self.descriptor == "mobilenet" and (least < _MOBILENET_COSINE or not self.centre):
            raise ValueError(
                f"descriptor=mobilenet with centre={str(self.centre).lower()} and a cosine of {least} would merge "
                "strangers: set centre=true, min_cosine=1 and hash_confirm_cosine=1, so that it only says which "
                "pictures are compared, or describe copies with builtin"
            )
        return self

    def bounds(self) -> Bounds:
        """The part that decides edges."""
        return Bounds(**{name: getattr(self, name) for name in Bounds.__dataclass_fields__})


def profile_config(profile: str) -> DedupConfig:
    """The thresholds of a profile. Those of `full` are the ones that SSCD's authors publish (0.75, audit from 0.60).

    Those of the classical descriptor were fitted on labelled web pictures (tests/acceptance/test_duplicates.py); what
    they do to generated copies and hard negatives is in benchmarks/results/curation_copies.md.
    """
    if profile == "full":
        return DedupConfig(descriptor="sscd", min_cosine=0.75, hash_confirm_cosine=0.60, candidate_cosine=0.60)
    return DedupConfig(descriptor="builtin")


def run(
    images: pa.Table,
    scores: pa.Table,
    filtered: pa.Table,
    config: DedupConfig,
    *,
    detections: pa.Table | None = None,
    thumbnails: Thumbnails | None = None,
    search: Search | None = None,
    references: References | None = None,
    previous: Carried | None = None,
) -> StageResult:
    """One decision per picture that filter kept, with its group, and the edges; both sorted by image_id. Further
    tables are what a run on more pictures goes on from (curation.stages.dedup_previous).

    detections: ranks copies by the size of the largest person; without it by what filter measured. thumbnails:
    image_ids to uint8 pictures, [h, w] or RGB; without it no pair is confirmed by its pictures. search: what finds
    near hashes from config.shuffle_from pictures on, as hamming_pairs takes it. references: evaluation pictures; groups
    with a copy of one are dropped. previous: what an earlier run with the same thresholds left. Raises ValueError for
    missing columns or rows, and when hashes merge by chance (see curation.dedup.percolation).
    """
    require_columns(images, ["image_id", "phash", "phash_mirror", "phash_quality", "width", "height"], "dedup: images")
    require_columns(scores, ["image_id", "sharpness", "text_ratio", "copy_embedding"], "dedup: scores")
    rows = sorted_by_id(filtered.filter(filtered["keep"]))
    image_ids = rows["image_id"].to_pylist()
    kept_images = rows_for(images, image_ids, "dedup: images")
    kept_scores = rows_for(scores, image_ids, "dedup: scores", ["sharpness", "text_ratio"])
    _check_descriptor(scores, config)
    pictures = _pictures(image_ids, kept_images, vectors_for(scores, image_ids, "dedup: scores", "copy_embedding"))
    found = None if detections is None else rows_for(detections, image_ids, "dedup: detections")
    person_px = floats(rows["value"]) if found is None else largest_person_px(found, config.min_person_score)
    quality = rank_quality(kept_images, kept_scores, person_px, config)
    elsewhere = search if len(image_ids) >= config.shuffle_from else None
    cover = cover_copies(pictures, quality, config.bounds(), thumbnails, elsewhere, previous)
    table = _decisions(image_ids, cover, config)
    tables = {"edges": _edge_table(image_ids, cover.edges)}
    apart: dict[str, Any] = {}
    if references is not None:
        table, copies = keep_apart(table, pictures, references, config.bounds(), _thresholds(config), thumbnails)
        tables["evaluation_copies"] = copies
        apart = apart_metrics(table, copies, references)
    metrics = decision_metrics(table) | _metrics(table, cover, pictures, config) | apart
    shown = fragment(table, tables["edges"], metrics, config)
    if references is not None:
        shown["sections"].insert(1, apart_section(copies, references))
    return StageResult({"data": table, **tables, **carried_tables(cover.carried)}, metrics, shown)


def _check_descriptor(scores: pa.Table, config: DedupConfig) -> None:
    """A cosine means something else in every descriptor: thresholds of one merge strangers in another."""
    column = scores.schema.field("copy_embedding").type
    if config.descriptor is not None and column.list_size != DIMS[config.descriptor]:
        raise ValueError(
            f"scores hold copy descriptors of {column.list_size} numbers, dedup.descriptor={config.descriptor} has "
            f"{DIMS[config.descriptor]}; set score.copy_descriptor={config.descriptor}, or dedup.descriptor and its "
            f"cosines to what score used"
        )


def _pictures(image_ids: list[str], images: pa.Table, vectors: NDArray[np.float32]) -> Pictures:
    quality = np.nan_to_num(floats(images["phash_quality"]), nan=0.0)  # no quality known: not trusted
    codes = [pc.fill_null(images[name], 0).cast(pa.uint64()).to_numpy() for name in ("phash", "phash_mirror")]
    return Pictures(image_ids, codes[0], codes[1], quality, vectors)


def rank_quality(
    images: pa.Table, scores: pa.Table, person_px: NDArray[np.float64], config: DedupConfig
) -> NDArray[np.float64]:
    """N - rank of each picture: the largest person first, then no overlay, sharpest, most pixels, most bytes.

    Person size counts in steps of a quarter octave and sharpness in steps of 0.05: copies of one size differ by a
    pixel of detector noise, which must not outrank a caption drawn over the picture.
    """
    size = np.round(4 * np.log2(np.maximum(np.where(np.isnan(person_px), 0.0, person_px), 1.0)))
    overlaid = floats(scores["text_ratio"]) > config.overlay_ratio
    sharpness = floats(scores["sharpness"])
    sharpness = np.round(np.where(np.isnan(sharpness), 0.0, sharpness) / 0.05)
    pixels = floats(images["width"]) * floats(images["height"])
    n_bytes = floats(images["n_bytes"]) if "n_bytes" in images.column_names else np.zeros(len(size))
    # lexsort sorts by its last key first; image_ids are sorted, so ties fall to the smallest.
    order = np.lexsort((np.arange(len(size)), -n_bytes, -pixels, -sharpness, overlaid, -size))
    rank = np.empty(len(size))
    rank[order] = np.arange(len(size))
    return len(size) - rank


def _decisions(image_ids: list[str], cover: Cover, config: DedupConfig) -> pa.Table:
    ids = pa.array(image_ids, pa.string())
    kept = cover.edge < 0
    bounds = np.array([_thresholds(config)[kind] for kind in KINDS])
    reasons = pa.array([f"duplicate_{kind}" for kind in KINDS])
    # Kept rows have edge -1: the row of no edge that is appended answers for them, and is masked.
    kind, distance = np.append(cover.edges.kind, 0)[cover.edge], np.append(cover.edges.distance, 0.0)[cover.edge]
    columns = {
        "image_id": ids,
        "keep": kept,
        "reason": reasons.take(pa.array(kind, mask=kept)),
        "value": pa.array(distance, mask=kept),
        "threshold": pa.array(bounds[kind], mask=kept),
        "representative_id": ids.take(pa.array(cover.representative)),
        "group_id": ids.take(pa.array(groups(cover.edges.pairs, len(image_ids)))),
    }
    return pa.table(columns, schema=DEDUPED)


def _thresholds(config: DedupConfig) -> dict[str, float]:
    """The distance up to which each kind of evidence is an edge."""
    return {
        "phash": float(config.hash_candidate_radius),
        "mirror": float(config.hash_candidate_radius),
        "feature": round(1 - config.min_cosine, 6),
        "geometry": round(1 - config.min_agreement, 6),
    }


def _edge_table(image_ids: list[str], edges: Edges) -> pa.Table:
    ids, kinds = pa.array(image_ids, pa.string()), pa.array(KINDS)
    columns = {
        "a": ids.take(pa.array(edges.pairs[:, 0])),
        "b": ids.take(pa.array(edges.pairs[:, 1])),
        "kind": kinds.take(pa.array(edges.kind)),
        "distance": edges.distance.astype(np.float32),
    }
    return pa.table(columns, schema=EDGES)


def _metrics(table: pa.Table, cover: Cover, pictures: Pictures, config: DedupConfig) -> dict[str, Any]:
    sizes = table["group_id"].value_counts().field("counts").to_numpy()
    edges, guard = cover.edges, cover.guard
    return {
        "edges": {kind: int((edges.kind == index).sum()) for index, kind in enumerate(KINDS)},
        "groups": int((sizes > 1).sum()),
        "largest_group": int(sizes.max(initial=0)),
        "pictures_compared": edges.candidates,
        "pictures_agreeing": edges.confirmed,
        "untrusted_hashes": int((pictures.hash_quality < config.min_hash_quality).sum()),
        "without_descriptor": int((~pictures.vectors.any(axis=1)).sum()),
        "hash_degree": {str(r): round(v, 6) for r, v in guard.mean_degree.items()},
        "chance_degree": {str(r): float(f"{v:.3g}") for r, v in guard.chance_degree.items()},
        "longest_hash_chain": guard.chain_hops,
        THRESHOLD: cover.carried.threshold,
        **_search_metrics(edges),
    }


def _search_metrics(edges: Edges) -> dict[str, Any]:
    """What the brute-force sample said of the search for near descriptors, where not every pair was compared."""
    search = edges.search
    if search is None:
        return {}
    shares = {"descriptor_recall": search.recall, "descriptor_recall_low": search.recall_low}
    counts = {"descriptor_cells": search.cells, "descriptor_probes": search.probes}
    counts |= {"descriptor_comparisons": search.comparisons, "descriptor_placings": search.placings}
    counts |= {"descriptor_sampled_pairs": search.sampled_pairs}
    return {name: round(share, 5) for name, share in shares.items()} | counts
