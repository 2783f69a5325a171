"""The greedy cover: what it promises for any graph, and the same choice as a plain loop over the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup import groups, representatives


@st.composite
def graphs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(0, 25))
    row = st.integers(0, max(n - 1, 0))
    edges = draw(st.lists(st.tuples(row, row), max_size=60)) if n else []
    quality = draw(st.lists(st.sampled_from([0.0, 1.0, 2.5, -1.0]), min_size=n, max_size=n))
    return np.array(edges, dtype=np.int64).reshape(-1, 2), np.array(quality)


def by_definition(edges: np.ndarray, quality: np.ndarray) -> tuple[list[bool], list[int]]:
    """Visit the best first; keep what no kept neighbour stands for."""
    n = len(quality)
    around: list[set[int]] = [set() for _ in range(n)]
    for a, b in edges.tolist():
        if a != b:
            around[a].add(b)
            around[b].add(a)
    keep, representative = [False] * n, list(range(n))
    for row in sorted(range(n), key=lambda k: (-quality[k], k)):
        standing = [other for other in around[row] if keep[other]]
        keep[row] = not standing
        if standing:
            representative[row] = min(standing, key=lambda k: (-quality[k], k))
    return keep, representative


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_cover_of_any_graph(graph: tuple[np.ndarray, np.ndarray]) -> None:
    edges, quality = graph
    keep, representative = representatives(edges, quality)
    expected_keep, expected = by_definition(edges, quality)
    assert keep.tolist() == expected_keep
    assert representative.tolist() == expected
    joined = {frozenset(edge) for edge in edges.tolist()}
    for row, stands in enumerate(representative.tolist()):
        assert keep[stands], "a representative is kept"
        assert keep[row] == (stands == row), "kept rows stand for themselves"
        assert keep[row] or frozenset((row, stands)) in joined, "a dropped row has a kept neighbour"
    assert not [edge for edge in edges.tolist() if edge[0] != edge[1] and keep[edge[0]] and keep[edge[1]]]


def test_a_chain_keeps_every_other_picture() -> None:
    edges = [(k, k + 1) for k in range(9)]
    keep, _ = representatives(edges, np.arange(10.0))
    assert np.flatnonzero(keep).tolist() == [1, 3, 5, 7, 9]


def test_no_edges_keep_all_and_no_rows_are_fine() -> None:
    assert representatives(np.zeros((0, 2), int), np.zeros(3))[0].all()
    assert len(representatives([], [])[0]) == 0


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_groups_are_connected_components(graph: tuple[np.ndarray, np.ndarray]) -> None:
    edges, quality = graph
    label = list(range(len(quality)))
    for _ in label:  # spread the smallest name until nothing changes
        for a, b in edges.tolist():
            label[a] = label[b] = min(label[a], label[b])
    assert groups(edges, len(quality)).tolist() == label


@pytest.mark.parametrize("edges", [[(0, 3)], [(-1, 0)]])
def test_edges_out_of_range(edges: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="there are 3 rows"):
        representatives(edges, np.zeros(3))


def test_quality_must_be_a_number() -> None:
    with pytest.raises(ValueError, match="row 1 is not a number"):
        representatives([(0, 1)], [0.0, float("nan")])
