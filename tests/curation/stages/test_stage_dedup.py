"""dedup: what each kind of evidence merges, who represents whom, and when it refuses."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from decision_tables import (
    COPY_DIM,
    detection_row,
    detections_table,
    image_row,
    images_table,
    phash_like,
    picture_id,
    score_row,
    scores_table,
    shuffled,
)

from curation.dedup.cells import RecallTooLow
from curation.dedup.hamming import distinct_pairs
from curation.stages import dedup
from curation.stages.dedup import DedupConfig
from curation.stages.result import StageResult
from curation.tables import DECISIONS, from_rows

CODE = phash_like(np.random.default_rng(7))
AXES = np.eye(COPY_DIM)


def flipped(code: int, bits: int) -> int:
    return code ^ ((1 << bits) - 1)


def at_cosine(cosine: float, first: int = 0, second: int = 1) -> list[float]:
    """A unit vector at this cosine to the first axis."""
    return (cosine * AXES[first] + np.sqrt(1 - cosine**2) * AXES[second]).tolist()


def run(
    images: list[dict[str, Any]],
    scores: list[dict[str, Any]] | None = None,
    *,
    config: DedupConfig | None = None,
    detections: list[dict[str, Any]] | None = None,
    **options: Any,
) -> StageResult:
    scores = scores or [{} for _ in images]
    rows = [{"image_id": picture_id(k), "keep": True, "value": 400.0} for k in range(len(images))]
    boxes = None if detections is None else detections_table([detection_row(k, **d) for k, d in enumerate(detections)])
    return dedup.run(
        images_table([image_row(k, **i) for k, i in enumerate(images)]),
        scores_table([score_row(k, **s) for k, s in enumerate(scores)]),
        from_rows(rows, DECISIONS),
        config or DedupConfig(),
        detections=boxes,
        **options,
    )


def by_index(result: StageResult, n: int) -> list[dict[str, Any]]:
    rows = {row["image_id"]: row for row in result.tables["data"].to_pylist()}
    return [rows[picture_id(k)] for k in range(n)]


def edge_kinds(result: StageResult) -> list[tuple[str, float]]:
    return sorted((edge["kind"], round(edge["distance"], 3)) for edge in result.tables["edges"].to_pylist())


FAR = [{"copy_embedding": AXES[0].tolist()}, {"copy_embedding": AXES[1].tolist()}]


@pytest.mark.parametrize(("bits", "merged"), [(0, True), (4, True), (5, False), (6, False), (8, False)])
def test_a_close_hash_merges_by_itself_and_a_less_close_one_does_not(bits: int, merged: bool) -> None:
    result = run([{"phash": CODE}, {"phash": flipped(CODE, bits)}], FAR)
    assert (result.metrics["kept"] == 1) is merged
    if merged:
        assert result.metrics["dropped"] == {"duplicate_phash": 1}
        assert edge_kinds(result) == [("phash", float(bits))]


@pytest.mark.parametrize(("bits", "cosine", "merged"), [(8, 0.6, True), (8, 0.5, False), (10, 0.6, False)])
def test_the_descriptor_confirms_a_less_close_hash(bits: int, cosine: float, merged: bool) -> None:
    scores = [{"copy_embedding": AXES[0].tolist()}, {"copy_embedding": at_cosine(cosine)}]
    result = run([{"phash": CODE}, {"phash": flipped(CODE, bits)}], scores)
    assert (result.metrics["kept"] == 1) is merged


@pytest.mark.parametrize(("cosine", "merged"), [(0.71, True), (0.69, False)])
def test_a_close_descriptor_merges_by_itself(cosine: float, merged: bool) -> None:
    scores = [{"copy_embedding": AXES[0].tolist()}, {"copy_embedding": at_cosine(cosine)}]
    result = run([{}, {}], scores)
    assert (result.metrics["kept"] == 1) is merged
    if merged:
        assert edge_kinds(result) == [("feature", 0.29)]


@pytest.mark.parametrize("bits", [0, 4, 8])
def test_a_mirror_hash_needs_the_descriptor(bits: int) -> None:
    images = [{"phash": CODE}, {"phash_mirror": flipped(CODE, bits)}]
    assert run(images, FAR).metrics["kept"] == 2
    alike = [{"copy_embedding": AXES[0].tolist()}, {"copy_embedding": at_cosine(0.6)}]
    result = run(images, alike)
    assert edge_kinds(result) == [("mirror", float(bits))]


def test_hashes_of_flat_pictures_are_not_compared() -> None:
    images = [{"phash": CODE, "phash_quality": 0.2}, {"phash": CODE, "phash_quality": None}, {"phash": CODE}]
    scores = [{"copy_embedding": axis.tolist()} for axis in AXES[:3]]
    result = run(images, scores)
    assert result.metrics["kept"] == 3
    assert result.metrics["untrusted_hashes"] == 2


def test_the_best_copy_represents_the_others() -> None:
    """The largest person wins, then the one without a caption, the sharpest, the one with the most pixels."""
    same = {"phash": CODE, "phash_mirror": CODE}

    def best(*changes: tuple[dict[str, Any], dict[str, Any], float]) -> int:
        boxes = [{"boxes": [[0, 0, c[2], 2000]]} for c in changes]
        result = run([same | c[0] for c in changes], [c[1] for c in changes], detections=boxes)
        kept = [k for k, row in enumerate(by_index(result, len(changes))) if row["keep"]]
        assert len(kept) == 1
        return kept[0]

    assert best(({}, {}, 400), ({}, {"text_ratio": 0.5, "sharpness": 0.1}, 600)) == 1
    assert best(({}, {"text_ratio": 0.2, "sharpness": 0.9}, 401), ({}, {}, 400)) == 1
    assert best(({"width": 4000}, {"sharpness": 0.3}, 400), ({}, {"sharpness": 0.6}, 400)) == 1
    assert best(({}, {}, 400), ({"width": 4000}, {}, 401)) == 1
    assert best(({"n_bytes": 10}, {}, 400), ({"n_bytes": 20}, {}, 400)) == 1


def test_a_chain_is_covered_not_collapsed() -> None:
    """Each picture resembles the next only: the ends stay apart, and every dropped one has a kept neighbour."""
    codes = [CODE]
    for k in range(8):
        codes.append(codes[-1] ^ (0b1111 << (4 * k)))
    result = run([{"phash": code} for code in codes], [{"copy_embedding": None}] * 9)
    rows = by_index(result, 9)
    kept = {k for k, row in enumerate(rows) if row["keep"]}
    assert 3 <= len(kept) <= 5
    for k, row in enumerate(rows):
        near = [o for o in kept if bin(codes[k] ^ codes[o]).count("1") <= 4]
        assert near, f"picture {k} has no kept neighbour"
        assert row["representative_id"] in {picture_id(o) for o in near}
        assert row["group_id"] == min(picture_id(o) for o in range(9))


def test_ten_thousand_copies_are_healthy() -> None:
    n = 3000
    images = [{"phash": CODE, "phash_mirror": CODE}] * n + [{"phash": flipped(CODE, 4), "phash_mirror": CODE}] * 5
    result = run(images)
    assert result.metrics["kept"] == 1
    assert result.metrics["largest_group"] == n + 5
    assert result.tables["edges"].num_rows < 2 * (n + 5), "edges grow with the copies, not with their square"


def test_chains_by_chance_are_refused() -> None:
    rng = np.random.default_rng(0)
    codes = [CODE]
    for _ in range(400):  # a slow drift: neighbours differ by 2 bits, the ends are strangers
        ones = [b for b in range(64) if codes[-1] >> b & 1]
        zeros = [b for b in range(64) if not codes[-1] >> b & 1]
        codes.append(codes[-1] ^ (1 << int(rng.choice(ones))) ^ (1 << int(rng.choice(zeros))))
    with pytest.raises(ValueError, match=r"refuses to merge by hash: .* lower dedup\.hash_radius"):
        run([{"phash": code} for code in codes])
    assert run([{"phash": c} for c in codes], config=DedupConfig(max_chain_hops=400)).metrics["kept"] < 401


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (24, 32), dtype=np.uint8)
    return cv2.resize(small, (320, 240), interpolation=cv2.INTER_CUBIC)


def test_suspected_pairs_are_compared_as_pictures() -> None:
    """A crop is confirmed, a stranger at the same cosine is not; only suspected pictures are asked for."""
    vectors = [AXES[0].tolist(), at_cosine(0.5, 0, 1), at_cosine(0.5, 0, 2), AXES[5].tolist()]
    shown = {
        picture_id(0): picture(1),
        picture_id(1): np.ascontiguousarray(picture(1)[20:220, 40:300]),
        picture_id(2): picture(2),
    }
    asked: list[str] = []

    def thumbnails(image_ids: list[str]) -> dict[str, np.ndarray]:
        asked.extend(image_ids)
        return {image_id: shown[image_id] for image_id in image_ids}

    scores = [{"copy_embedding": v} for v in vectors]
    result = run([{}, {}, {}, {}], scores, thumbnails=thumbnails)
    rows = by_index(result, 4)
    assert [row["group_id"] == rows[0]["group_id"] for row in rows] == [True, True, False, False]
    assert result.metrics["dropped"] == {"duplicate_geometry": 1}
    assert result.metrics["pictures_agreeing"] == 1 and result.metrics["pictures_compared"] == 2
    assert sorted(asked) == sorted(shown), "each suspected picture is fetched once, others never"
    assert run([{}, {}, {}, {}], scores).metrics["kept"] == 4, "without pictures nothing is confirmed"


def test_a_missing_picture_confirms_nothing() -> None:
    scores = [{"copy_embedding": AXES[0].tolist()}, {"copy_embedding": at_cosine(0.5)}]
    result = run([{}, {}], scores, thumbnails=lambda ids: {})
    assert result.metrics["kept"] == 2


def test_rows_that_filter_dropped_do_not_take_part() -> None:
    images = images_table([image_row(k, phash=CODE) for k in range(3)])
    rows = [{"image_id": picture_id(k), "keep": k != 1, "reason": "blurred" if k == 1 else None} for k in range(3)]
    result = dedup.run(
        images, scores_table([score_row(k) for k in range(3)]), from_rows(rows, DECISIONS), DedupConfig()
    )
    assert sorted(result.tables["data"]["image_id"].to_pylist()) == sorted([picture_id(0), picture_id(2)])
    assert result.metrics["kept"] == 1


def test_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    images = images_table([image_row(k, phash=flipped(CODE, int(rng.integers(0, 12)))) for k in range(60)])
    scores = scores_table([score_row(k) for k in range(60)])
    rows = from_rows([{"image_id": picture_id(k), "keep": True} for k in range(60)], DECISIONS)
    first = dedup.run(images, scores, rows, DedupConfig())
    again = dedup.run(shuffled(images, 1), shuffled(scores, 2), shuffled(rows, 3), DedupConfig())
    assert first.tables["data"].equals(again.tables["data"])
    assert first.tables["edges"].equals(again.tables["edges"])


def test_bounds_must_be_ordered() -> None:
    with pytest.raises(ValueError, match="raise the latter"):
        DedupConfig(hash_radius=6, hash_candidate_radius=4)
    with pytest.raises(ValueError, match="lower the former"):
        DedupConfig(candidate_cosine=0.9, min_cosine=0.8)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"centre": True},
        {"min_cosine": 1.0, "hash_confirm_cosine": 1.0},
        {"centre": True, "min_cosine": 1.0, "hash_confirm_cosine": 0.9},
    ],
)
def test_mobilenet_merges_nothing_by_itself(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="would merge strangers: set centre=true, min_cosine=1"):
        DedupConfig(descriptor="mobilenet", **fields)
    DedupConfig(descriptor="mobilenet", centre=True, min_cosine=1.0, hash_confirm_cosine=1.0)


def test_thresholds_of_another_descriptor_are_refused() -> None:
    with pytest.raises(ValueError, match=r"6 numbers, dedup\.descriptor=builtin has 512"):
        run([{}, {}], config=DedupConfig(descriptor="builtin"))


def test_centring_tells_apart_what_shares_a_large_common_part() -> None:
    common = 10 * AXES[0]
    scores = [{"copy_embedding": (common + AXES[k]).tolist()} for k in (1, 1, 2, 3, 4)]
    images = [{} for _ in scores]
    assert run(images, scores).metrics["kept"] == 1
    assert run(images, scores, config=DedupConfig(centre=True)).metrics["kept"] == 4


def test_many_pictures_are_compared_elsewhere_with_the_same_result() -> None:
    asked: list[int] = []

    def elsewhere(codes: np.ndarray, radius: int) -> tuple[np.ndarray, ...]:
        asked.append(len(codes))
        return distinct_pairs(codes, radius)

    images = [{"phash": flipped(CODE, bits)} for bits in (0, 2, 10)]
    here = run(images, search=elsewhere)
    assert asked == [], "three pictures are few"
    there = run(images, config=DedupConfig(shuffle_from=3), search=elsewhere)
    assert asked and there.tables["data"].equals(here.tables["data"])
    assert there.tables["edges"].equals(here.tables["edges"])


def test_descriptors_whose_pairs_the_cells_do_not_find_stop_the_stage() -> None:
    """Noise has near pairs everywhere, also across the borders of cells, so that no cells hold 0.985 of them."""
    assert DedupConfig().min_recall == 0.985
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((60, COPY_DIM))
    scores = [{"copy_embedding": (row / np.linalg.norm(row)).tolist()} for row in noise]
    images = [{"phash": phash_like(rng)} for _ in noise]
    config = DedupConfig(exact_rows=20, min_cosine=0.5)
    with pytest.raises(RecallTooLow, match=r"0\.985 is asked\..*raise dedup\.exact_rows"):
        run(images, scores, config=config)
    assert run(images, scores, config=config.model_copy(update={"exact_rows": 60})).metrics["rows_in"] == 60


def test_many_descriptors_are_searched_by_cells_and_the_recall_is_told() -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal((60, COPY_DIM))
    rows = np.concatenate([base, base + 0.05 * rng.standard_normal(base.shape)])
    images = [{"phash": phash_like(rng)} for _ in rows]
    scores = [{"copy_embedding": (row / np.linalg.norm(row)).tolist()} for row in rows]
    everything = run(images, scores)
    cells = run(images, scores, config=DedupConfig(exact_rows=20, min_recall=0.9999))
    assert cells.tables["data"].equals(everything.tables["data"])
    assert cells.metrics["dropped"]["duplicate_feature"] >= 60
    assert cells.metrics["descriptor_recall"] == 1.0 and cells.metrics["descriptor_sampled_pairs"] >= 60
    assert "descriptor_recall" not in everything.metrics
