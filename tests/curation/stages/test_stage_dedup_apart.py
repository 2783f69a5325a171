"""Evaluation sets: their copies go with their whole groups, and what cannot be compared is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from decision_tables import COPY_DIM, image_row, images_table, phash_like, picture_id, score_row, scores_table
from PIL import Image as pillow

from curation.dedup.evidence import Pictures
from curation.models.copy_descriptor import build_copy_descriptor
from curation.stages import dedup
from curation.stages.dedup import DedupConfig
from curation.stages.dedup_references import References, digest, read_references
from curation.stages.result import StageResult
from curation.tables import DECISIONS, from_rows

CODE, OTHER, MIRRORED = (phash_like(np.random.default_rng(seed)) for seed in (7, 9, 11))
AXES = np.eye(COPY_DIM)


def references(*rows: dict[str, Any], small: dict[str, np.ndarray] | None = None) -> References:
    full = [{"phash": OTHER, "mirror": OTHER, "quality": 1.0, "vector": np.zeros(COPY_DIM)} | row for row in rows]
    ids = [f"eval-{k}" for k in range(len(full))]
    pictures = Pictures(
        ids,
        np.array([row["phash"] for row in full], np.uint64),
        np.array([row["mirror"] for row in full], np.uint64),
        np.array([row["quality"] for row in full]),
        np.array([row["vector"] for row in full], np.float32).reshape(-1, COPY_DIM),
    )
    return References(
        pictures, [f"{k}.jpg" for k in range(len(full))], ["/eval"] * len(full), small or {}, {"/eval": 0}
    )


def run(images: list[dict[str, Any]], scores: list[dict[str, Any]], against: References, **options: Any) -> StageResult:
    rows = [{"image_id": picture_id(k), "keep": True, "value": 400.0} for k in range(len(images))]
    tables = (
        images_table([image_row(k, **row) for k, row in enumerate(images)]),
        scores_table([score_row(k, **row) for k, row in enumerate(scores)]),
        from_rows(rows, DECISIONS),
    )
    return dedup.run(*tables, DedupConfig(), references=against, **options)


def by_index(result: StageResult, n: int) -> list[dict[str, Any]]:
    rows = {row["image_id"]: row for row in result.tables["data"].to_pylist()}
    return [rows[picture_id(k)] for k in range(n)]


FAR = [{"copy_embedding": axis.tolist()} for axis in AXES[:4]]


def test_the_whole_group_of_a_copy_goes_and_nothing_stands_for_it() -> None:
    """0 and 1 are one group; only 0 is a copy of the evaluation picture. 2 is another group, 3 a stranger."""
    other = phash_like(np.random.default_rng(8))
    images = [{"phash": CODE ^ 0b11}, {"phash": CODE ^ 0b111111}, {"phash": other}, {"phash": other ^ 0b11}]
    result = run(images, FAR, references({"phash": CODE}))
    rows = by_index(result, 4)
    assert [row["reason"] for row in rows[:2]] == ["evaluation_copy"] * 2
    assert [(row["value"], row["threshold"], row["representative_id"]) for row in rows[:2]] == [(2.0, 8.0, None)] * 2
    assert sorted(row["keep"] for row in rows[2:]) == [False, True]
    assert result.metrics["dropped"] == {"duplicate_phash": 1, "evaluation_copy": 2}
    copies = result.tables["evaluation_copies"].to_pylist()
    assert copies == [
        {"image_id": picture_id(0), "evaluation_set": "/eval", "source": "0.jpg", "kind": "phash", "distance": 2.0}
    ]
    assert result.metrics["evaluation_pictures_with_copies"] == 1 and result.metrics["evaluation_groups"] == 1
    assert result.fragment is not None
    assert ["/eval", 1, 1, 1] in result.fragment["sections"][1]["rows"]


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ({"phash": CODE ^ 0b1111}, "phash"),
        ({"phash": CODE ^ 0b111111}, None),  # 6 bits need a second witness
        ({"phash": CODE ^ 0b111111, "vector": 0.6 * AXES[0] + 0.8 * AXES[5]}, "phash"),
        ({"phash": CODE, "quality": 0.1}, None),  # a flat picture
        ({"phash": MIRRORED ^ 0b11}, None),  # a mirrored hash needs one too
        ({"phash": MIRRORED ^ 0b11, "vector": 0.6 * AXES[0] + 0.8 * AXES[5]}, "mirror"),
        ({"vector": 0.71 * AXES[0] + 0.704 * AXES[5]}, "feature"),
        ({"vector": 0.69 * AXES[0] + 0.724 * AXES[5]}, None),
    ],
)
def test_the_evidence_is_that_of_the_pool(reference: dict[str, Any], kind: str | None) -> None:
    result = run([{"phash": CODE, "phash_mirror": MIRRORED}, {}], FAR[:2], references(reference))
    assert [row["reason"] for row in by_index(result, 2)] == ["evaluation_copy" if kind else None, None]
    assert result.tables["evaluation_copies"]["kind"].to_pylist() == [kind] * bool(kind)


def scene(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (24, 32), dtype=np.uint8)
    return cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)


def test_a_suspected_copy_is_compared_as_a_picture() -> None:
    reference = {"vector": 0.5 * AXES[0] + 0.5 * AXES[1] + np.sqrt(0.5) * AXES[5]}
    small = {"eval-0": np.ascontiguousarray(scene(1)[20:220, 40:300])}
    shown = {picture_id(0): scene(1), picture_id(1): scene(2)}
    against = references(reference, small=small)
    result = run([{}, {}], FAR[:2], against, thumbnails=lambda ids: {i: shown[i] for i in ids})
    assert [row["reason"] for row in by_index(result, 2)] == ["evaluation_copy", None]
    assert result.tables["evaluation_copies"]["kind"].to_pylist() == ["geometry"]


def test_the_same_picture_in_the_pool_and_in_the_set_has_one_id_and_is_found() -> None:
    """Ids of references never meet those of the pool, also where the bytes are the same."""
    against = references({"vector": 0.5 * AXES[0] + np.sqrt(0.75) * AXES[5]})
    against.pictures.image_ids[0] = picture_id(0)
    against.small[picture_id(0)] = scene(1)
    result = run([{}], FAR[:1], against, thumbnails=lambda ids: {i: scene(1) for i in ids})
    assert by_index(result, 1)[0]["reason"] == "evaluation_copy"


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    pillow.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def test_a_folder_is_hashed_and_described_as_the_pool_is(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(scene(1)))
    (tmp_path / "b.jpg").write_bytes(jpeg(scene(2)))
    (tmp_path / "broken.jpg").write_bytes(jpeg(scene(3))[:2000])
    config = DedupConfig(apart_from=(str(tmp_path),), descriptor="builtin")
    found = read_references(config, {})
    assert found is not None and sorted(found.sources) == ["a.jpg", "b.jpg"]
    assert found.unreadable == {str(tmp_path): 1}
    at = found.sources.index("a.jpg")
    described = build_copy_descriptor("builtin", {}).embed([np.stack([scene(1)] * 3, axis=-1)])[0]
    assert float(described @ found.pictures.vectors[at]) > 0.98
    assert found.small[found.pictures.image_ids[at]].shape == (240, 320)
    before = digest(config)
    (tmp_path / "b.jpg").write_bytes(jpeg(scene(4)))
    assert before != digest(config)
    assert digest(DedupConfig()) is None and read_references(DedupConfig(), {}) is None


def test_a_table_of_features_needs_no_pictures(tmp_path: Path) -> None:
    table = pa.table({"source": ["x", "y"], "copy_embedding": [[1.0] * 512, None]})
    pq.write_table(table, tmp_path / "features.parquet")
    found = read_references(DedupConfig(apart_from=(f"{tmp_path}/features.parquet",), descriptor="builtin"), {})
    assert found is not None and found.sources == ["x", "y"] and found.small == {}
    assert found.pictures.vectors[0].all() and not found.pictures.vectors[1].any()
    assert not found.pictures.hash_quality.any(), "hashes that are not known are not trusted"


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    def config(name: str, descriptor: str | None = "builtin") -> DedupConfig:
        return DedupConfig(apart_from=(f"{tmp_path}/{name}",), descriptor=descriptor)

    (tmp_path / "urls.txt").write_text("https://example.org/a.jpg\n")
    pq.write_table(pa.table({"copy_embedding": [[1.0] * 7]}), tmp_path / "narrow.parquet")
    (tmp_path / "empty").mkdir()
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"urls\.txt of dedup\.apart_from lists URLs"):
        digest(config("urls.txt"))
    with pytest.raises(ValueError, match=r"descriptors of 7 numbers, dedup\.descriptor=builtin has 512"):
        read_references(config("narrow.parquet"), {})
    with pytest.raises(ValueError, match=r"dedup\.apart_from: .*is empty"):
        digest(config("empty"))
    with pytest.raises(ValueError, match="holds no picture that can be read"):
        read_references(config("none"), {})
    with pytest.raises(ValueError, match=r"dedup\.apart_from: .*missing does not exist"):
        digest(config("missing"))
    with pytest.raises(ValueError, match=r"dedup\.apart_from: .*missing\.parquet does not exist"):
        digest(config("missing.parquet"))
    pq.write_table(pa.table({"source": ["a"], "phash": [1]}), tmp_path / "neither.parquet")
    with pytest.raises(ValueError, match=r"neither\.parquet of dedup\.apart_from .* columns phash, source: give"):
        digest(config("neither.parquet"))
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "neither.parquet").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"cut\.parquet of dedup\.apart_from is no Parquet file, or a damaged one"):
        digest(config("cut.parquet"))
    pq.write_table(pa.table({"url": ["https://example.org/a.jpg"]}), tmp_path / "urls.parquet")
    with pytest.raises(ValueError, match=r"urls\.parquet of dedup\.apart_from lists URLs"):
        digest(config("urls.parquet"))
    with pytest.raises(ValueError, match=r"needs dedup\.descriptor"):
        read_references(config("none", None), {})
    with pytest.raises(ValueError, match="relative: steps run in folders of their own"):
        DedupConfig(apart_from=("eval",))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"copy_embedding": [[0.1] * 512, [float("nan")] * 512], "source": ["a", "b"]}, r"of 1 rows .*the first is b;"),
        ({"copy_embedding": [0.1, 0.2]}, "copy_embedding is double, and should be a list of floats"),
        ({"copy_embedding": ["0.1", "0.2"]}, "copy_embedding is string, and should be a list"),
        ({"phash": ["ff"], "phash_mirror": [3], "phash_quality": [1.0]}, "phash is string, and should be a 64-bit"),
        ({"phash": [1], "phash_mirror": [3], "phash_quality": ["good"]}, "phash_quality is string, and should be a fl"),
    ],
)
def test_features_of_another_kind_are_named(tmp_path: Path, columns: dict[str, list[object]], said: str) -> None:
    path = tmp_path / "features.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(ValueError, match=said) as told:
        read_references(DedupConfig(apart_from=(str(path),), descriptor="builtin"), {})
    assert str(path) in str(told.value)
