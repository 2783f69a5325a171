"""Which pictures are labelled: even over clusters, keyed by seed and id."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from decision_tables import picture_id, shuffled

from curation.stages.label_sample import group_splits, label_sample
from curation.tables import CLUSTERS, DECISIONS, from_rows

SIZES = (200, 30, 6, 2)


def tables() -> tuple[pa.Table, pa.Table, dict[str, int]]:
    """Four clusters of very different sizes, of which every seventh picture was not kept."""
    cluster = [k for k, size in enumerate(SIZES) for _ in range(size)]
    of = {picture_id(row): leaf for row, leaf in enumerate(cluster)}
    clusters = [{"image_id": i, "path": [leaf, leaf // 2], "distance": 0.1} for i, leaf in of.items()]
    decisions = [{"image_id": i, "keep": row % 7 != 0} for row, i in enumerate(of)]
    return from_rows(decisions, DECISIONS), from_rows(clusters, CLUSTERS), of


def test_clusters_share_the_places_evenly() -> None:
    selection, clusters, of = tables()
    chosen = label_sample(selection, clusters, 40, seed=0)
    kept = {row["image_id"] for row in selection.to_pylist() if row["keep"]}
    assert len(set(chosen)) == 40 and set(chosen) <= kept
    places = Counter(of[i] for i in chosen)
    small = sum(of[i] in (2, 3) for i in kept)  # a pair of clusters with less than its half of the places gives all
    assert places[2] + places[3] == small and abs(places[0] - places[1]) <= 1


def test_the_sample_is_keyed_by_the_seed_and_grows_by_appending() -> None:
    selection, clusters, _ = tables()
    chosen = label_sample(selection, clusters, 40, seed=3)
    assert label_sample(shuffled(selection, 1), shuffled(clusters, 2), 40, seed=3) == chosen
    assert label_sample(selection, clusters, 12, seed=3) == chosen[:12]
    assert label_sample(selection, clusters, 40, seed=4) != chosen
    rest = label_sample(selection, clusters, 1000, seed=3, skip=chosen)
    assert not set(rest) & set(chosen)
    assert len(rest) + 40 == sum(row["keep"] for row in selection.to_pylist())
    with pytest.raises(ValueError, match="count=0 pictures cannot be labelled"):
        label_sample(selection, clusters, 0, seed=0)


def test_a_group_is_on_one_side_whatever_the_other_groups_are() -> None:
    groups = [f"g{k}" for k in range(2000)]
    splits = group_splits(groups, 0.2)
    share = sum(split == "test" for split in splits.values()) / len(groups)
    assert 0.16 < share < 0.24
    assert group_splits(groups[:50], 0.2) == {g: splits[g] for g in groups[:50]}
    assert set(group_splits(groups, 0.0).values()) == {"train"} and set(group_splits(groups, 1.0).values()) == {"test"}


def test_a_larger_share_only_adds_groups_for_tests() -> None:
    """Batches of several shares can disagree about a group in one direction only, those of one share about none."""
    groups = [f"g{k}" for k in range(500)]
    tests = [{g for g, split in group_splits(groups, share).items() if split == "test"} for share in (0.1, 0.2, 0.4)]
    assert tests[0] < tests[1] < tests[2]
