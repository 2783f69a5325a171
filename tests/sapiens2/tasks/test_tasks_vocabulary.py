"""The vocabularies are complete and consistent."""

from __future__ import annotations

import numpy as np
import pytest

from sapiens2.tasks.vocabulary import keypoints, parts


def test_keypoints_are_308_with_unique_names() -> None:
    words = keypoints()
    assert len(words) == 308 and len(set(words.names)) == 308


def test_keypoint_flip_is_an_involution_with_16_fixed_points() -> None:
    flip = keypoints().flip
    assert (flip[flip] == np.arange(308)).all()
    assert (flip == np.arange(308)).sum() == 16


def test_flip_swaps_left_and_right_in_the_names() -> None:
    words = keypoints()
    for index, name in enumerate(words.names):
        if name.startswith("left_"):
            assert words.names[words.flip[index]] == name.replace("left_", "right_", 1)


def test_groups_are_a_partition() -> None:
    words = keypoints()
    sizes = {name: len(words.group(name)) for name in ("body", "foot", "face", "left_hand", "right_hand", "extra")}
    assert sizes == {"body": 17, "foot": 6, "face": 238, "left_hand": 20, "right_hand": 20, "extra": 7}
    assert sum(sizes.values()) == 308


def test_skeleton_links_are_mirror_symmetric() -> None:
    words = keypoints()
    assert words.links.shape == (65, 2) and words.links.max() < 308
    links = {frozenset(link) for link in words.links.tolist()}
    assert {frozenset(words.flip[list(link)].tolist()) for link in links} == links


def test_wholebody_ids_are_unique_and_in_range() -> None:
    ids = keypoints().wholebody
    ids = ids[ids >= 0]
    assert len(ids) == len(set(ids.tolist())) == 53 and ids.max() < 133


def test_parts_flip_is_an_involution_of_8_pairs() -> None:
    flip = parts().flip
    assert len(parts()) == 29 and (flip[flip] == np.arange(29)).all()
    assert (flip != np.arange(29)).sum() == 16


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="third_eye"):
        keypoints().id("third_eye")
    with pytest.raises(ValueError, match="Tail"):
        parts().id("Tail")
