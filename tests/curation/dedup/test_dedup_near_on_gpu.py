"""Near rows by an exact FAISS index are those that tiles of cosines find; here on the CPU's index, on a GPU's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import pytest

from curation.dedup import near_lists, near_on_gpu
from curation.dedup.near_lists import Lists, look

K, THRESHOLD = 8, 0.85


def rows() -> np.ndarray:
    """4,500 unit rows: loose clusters with copies, 300 rows that are all alike, 40 of zeros."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 32))[rng.integers(0, 60, 4500)] + 1.2 * rng.standard_normal((4500, 32))
    x[4000:4160] = x[:160] + 0.5 * rng.standard_normal((160, 32))
    x[2100:2400] = x[2100]
    x[4460:] = 0
    return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def lists(x: np.ndarray) -> Lists:
    everything = np.arange(len(x))
    found, work = look(x, np.zeros((len(x), 1), np.int64), everything, everything, K, THRESHOLD)
    assert work == len(x) ** 2
    return found


def the_same(a: Lists, b: Lists) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("row", "near", "cosine"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The GPU's index replaced by FAISS's own on the CPU, small shards; the indices that were made."""
    indices: list[Any] = []

    def index(dim: int) -> Any:
        indices.append(faiss.IndexFlatIP(dim))
        return indices[-1]

    search = near_on_gpu.search
    monkeypatch.setattr(near_on_gpu, "usable", lambda: True)
    monkeypatch.setattr(near_on_gpu, "WORTH", 1)
    monkeypatch.setattr(near_on_gpu, "SHARD", near_lists._TILE)
    monkeypatch.setattr(near_on_gpu, "search", lambda *a: search(*a, index_of=index))
    yield indices


def test_an_index_finds_what_tiles_of_cosines_find(made: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows()
    found = lists(x)
    assert [index.ntotal for index in made] == [2048, 2048, 404]
    monkeypatch.setattr(near_on_gpu, "usable", lambda: False)
    assert the_same(found, lists(x)) and len(made) == 3
    assert found.lengths(len(x))[:160].min() >= 1 and found.lengths(len(x))[2100:2400].min() == K
    assert not found.lengths(len(x))[4460:].any()


def test_rows_in_a_crowd_are_named_and_left_to_the_tiles() -> None:
    x = rows()
    everything = np.arange(len(x))
    blocks = list(near_on_gpu.search(x, everything, everything, 64, 0.8, index_of=faiss.IndexFlatIP))
    crowded = np.concatenate([block[2] for block in blocks])
    assert set(range(2100, 2400)) <= set(crowded.tolist())
    assert not np.isin(np.concatenate([block[0] for block in blocks]), crowded).any()
    assert all((row != near).all() for row, near, _, _ in blocks)


def test_little_work_is_not_taken_to_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> bool:
        raise AssertionError("asked for a GPU")

    monkeypatch.setattr(near_on_gpu, "usable", never)
    assert len(lists(rows()).row)


@pytest.mark.skipif(not near_on_gpu.usable(), reason="needs a GPU that FAISS can search on")
def test_on_a_gpu_the_lists_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    x = rows()
    here = lists(x)
    monkeypatch.setattr(near_on_gpu, "WORTH", 1)
    assert the_same(here, lists(x))
