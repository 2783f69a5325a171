"""Tables for the tests of the stages that decide: random pictures with nulls, equal hashes and no persons."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from curation.tables import DETECTIONS, IMAGES, SCORE_COLUMNS, from_rows, scores_schema

EMBEDDING_DIM, COPY_DIM = 4, 6


def picture_id(index: int) -> str:
    """An image_id that does not sort like its index."""
    return hashlib.sha256(str(index).encode()).hexdigest()[:32]


def phash_like(rng: np.random.Generator) -> int:
    """A code with 32 ones, as imagehash.phash makes them."""
    bits = rng.permutation(64)[:32]
    return int(sum(1 << int(bit) for bit in bits))


def image_row(index: int, **changes: Any) -> dict[str, Any]:
    """A row of `images` that passes every rule."""
    rng = np.random.default_rng(index)
    row = {
        "image_id": picture_id(index),
        "source": f"{index}.jpg",
        "n_sources": 1,
        "format": "jpeg",
        "width": 1024,
        "height": 768,
        "orientation": 1,
        "n_bytes": 1000 + index,
        "phash": phash_like(rng),
        "phash_mirror": phash_like(rng),
        "phash_quality": 1.0,
        "metadata": "{}",
    }
    return row | changes


def detection_row(index: int, **changes: Any) -> dict[str, Any]:
    """One person of 420 px."""
    row = {"image_id": picture_id(index), "boxes": [[100, 10, 520, 700]], "box_scores": [0.9], "refined": [False]}
    return row | changes


def unit(rng: np.random.Generator, dim: int) -> list[float]:
    """A random direction."""
    x = rng.standard_normal(dim)
    return [float(v) for v in x / np.linalg.norm(x)]


def score_row(index: int, **changes: Any) -> dict[str, Any]:
    """A sharp, well exposed photograph that looks at the camera."""
    rng = np.random.default_rng(1000 + index)
    row = {
        "image_id": picture_id(index),
        "scored": True,
        "sharpness": 0.6,
        "exposure": 0.5,
        "contrast": 0.4,
        "noise": 1.0,
        "flatness": 0.1,
        "colour_count": 300.0,
        "colour_temperature": 0.1,
        "realism": 0.95,
        "text_ratio": 0.0,
        "text_person_overlap": 0.0,
        "face_count": 1,
        "yaw_deg": 3.0,
        "embedding": unit(rng, EMBEDDING_DIM),
        "copy_embedding": unit(rng, COPY_DIM),
    }
    return row | changes


def images_table(rows: list[dict[str, Any]]) -> pa.Table:
    return from_rows(rows, IMAGES)


def detections_table(rows: list[dict[str, Any]]) -> pa.Table:
    return from_rows(rows, DETECTIONS)


def scores_table(rows: list[dict[str, Any]]) -> pa.Table:
    return from_rows(rows, scores_schema(EMBEDDING_DIM, COPY_DIM))


def shuffled(table: pa.Table, seed: int) -> pa.Table:
    """The same rows in another order."""
    return table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)))


def _maybe(draw: st.DrawFn, strategy: st.SearchStrategy[Any]) -> Any:
    return draw(st.one_of(st.none(), strategy))


def _measured(draw: st.DrawFn) -> dict[str, Any]:
    """Scores and boxes of one picture: anything at all, or (more often) what the rules let through."""
    share = st.floats(0, 1, width=32)
    names = [name for name, kind in SCORE_COLUMNS if kind == pa.float32()]
    if draw(st.integers(0, 3)):
        scores = {name: None for name in names if draw(st.booleans())}
        return {"scores": scores, "sizes": [draw(st.sampled_from([384, 420, 900]))], "box_scores": [1.0], "wide": False}
    sizes = draw(st.lists(st.sampled_from([0, 50, 383, 384, 900]), max_size=3))
    return {
        "scores": {name: _maybe(draw, share) for name in names} | {"scored": draw(st.booleans())},
        "sizes": sizes,
        "box_scores": [draw(share) for _ in sizes],
        "wide": draw(st.booleans()),
    }


@st.composite
def pools(draw: st.DrawFn, max_rows: int = 24) -> tuple[pa.Table, pa.Table, pa.Table]:
    """(images, detections, scores) of the same pictures: measurements missing, hashes and descriptors repeated."""
    n = draw(st.integers(0, max_rows))
    # A few codes, and codes one or a few bits away: copies, chains, and hashes that only suspect each other.
    codes = [phash_like(np.random.default_rng(k)) for k in range(draw(st.integers(1, 6)))]
    vectors = [unit(np.random.default_rng(k), COPY_DIM) for k in range(12)]
    embeddings = [None, *(unit(np.random.default_rng(k), EMBEDDING_DIM) for k in range(5))]
    images, detections, scores = [], [], []
    for index in range(n):
        measured = _measured(draw)
        code = draw(st.sampled_from(codes))
        for bit in draw(st.sets(st.integers(0, 63), max_size=6)):
            code ^= 1 << bit
        images.append(
            image_row(
                index,
                width=3000 if measured["wide"] else draw(st.integers(500, 1000)),
                height=3 if measured["wide"] else draw(st.integers(500, 1000)),
                phash=code,
                phash_mirror=draw(st.sampled_from(codes)),
                phash_quality=draw(st.sampled_from([1.0, 1.0, 0.1, None])),
                licence=_maybe(draw, st.sampled_from(["CC-BY", "unknown", " "])),
            )
        )
        boxes = [[0, 0, size, size * 2] for size in measured["sizes"]]
        changes = {"boxes": boxes, "box_scores": measured["box_scores"], "refined": [False] * len(boxes)}
        detections.append(detection_row(index, **changes))
        scores.append(
            score_row(
                index,
                **measured["scores"],
                face_count=_maybe(draw, st.integers(0, 3)),
                embedding=draw(st.sampled_from(embeddings)),
                copy_embedding=_maybe(draw, st.sampled_from(vectors)),
            )
        )
    return images_table(images), detections_table(detections), scores_table(scores)
