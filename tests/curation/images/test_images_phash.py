"""Perceptual hashes against imagehash on the same 32x32 picture, and what they are for: copies and mirrors."""

from __future__ import annotations

import imagehash
import numpy as np
import pytest
from numpy.typing import NDArray
from picture_makers import encode, smooth
from PIL import Image as pillow
from PIL import ImageDraw, ImageOps

from curation.images import Reject, phash, read_header
from curation.images.decode import decode_grey


def reference(grey32: NDArray[np.uint8]) -> int:
    return int(str(imagehash.phash(pillow.fromarray(grey32))), 16)


def bits_apart(a: int, b: int) -> int:
    return (int(a) ^ int(b)).bit_count()


def canonical(data: bytes) -> NDArray[np.uint8]:
    header = read_header(data)
    assert not isinstance(header, Reject)
    grey = decode_grey(data, header, min_side=phash.MIN_SIDE_PX)
    assert not isinstance(grey, Reject)
    return phash.thumbnail(grey)


@pytest.fixture(scope="module")
def greys() -> NDArray[np.uint8]:
    """500 pictures [500,32,32]: noise, smooth ones, ramps with noise, drawings."""
    rng = np.random.default_rng(7)
    noise = rng.integers(0, 256, (200, 32, 32), dtype=np.uint8)
    photos = np.stack([phash.thumbnail(np.asarray(smooth(i).convert("L"))) for i in range(200)])
    ramp = np.add.outer(np.arange(32), np.arange(32) * 3)
    ramps = np.stack([np.clip(ramp * rng.uniform(0.2, 2) + rng.normal(0, 3, (32, 32)), 0, 255) for _ in range(100)])
    return np.concatenate([noise, photos, ramps.astype(np.uint8)])


def test_bit_equal_to_imagehash(greys: NDArray[np.uint8]) -> None:
    codes, _, _ = phash.hashes(greys)
    assert [int(code) for code in codes] == [reference(grey) for grey in greys]


def test_mirror_is_the_hash_of_the_flipped_picture(greys: NDArray[np.uint8]) -> None:
    codes, mirrors, _ = phash.hashes(greys)
    flipped, unflipped, _ = phash.hashes(greys[:, :, ::-1])
    np.testing.assert_array_equal(mirrors, flipped)
    np.testing.assert_array_equal(unflipped, codes)
    assert (codes != mirrors).all()


def test_the_batch_does_not_matter(greys: NDArray[np.uint8]) -> None:
    codes, mirrors, quality = phash.hashes(greys)
    for i in range(0, len(greys), 97):
        one = phash.hashes(greys[i : i + 1])
        assert (one[0][0], one[1][0], one[2][0]) == (codes[i], mirrors[i], quality[i])
    assert [len(part) for part in phash.hashes(greys[:0])] == [0, 0, 0]


def test_quality_tells_flat_from_full() -> None:
    rng = np.random.default_rng(0)
    flat = np.full((32, 32), 200, np.uint8)
    grainy = (flat + rng.integers(-1, 2, (32, 32))).astype(np.uint8)
    ramp = np.tile(np.arange(100, 132, dtype=np.uint8), (32, 1))
    photo = np.asarray(smooth(1, 32, 32).convert("L"))
    _, _, quality = phash.hashes(np.stack([flat, grainy, ramp, photo]))
    assert (quality[:3] < 0.35).all() and quality[3] > 0.9
    assert ((quality >= 0) & (quality <= 1)).all()


def test_flat_pictures_have_one_hash_whatever_their_level() -> None:
    codes, mirrors, _ = phash.hashes(np.stack([np.full((32, 32), level, np.uint8) for level in (1, 77, 128, 255)]))
    assert len(set(codes.tolist())) == 1 and len(set(mirrors.tolist())) == 1


@pytest.mark.parametrize("seed", range(6))
def test_copies_stay_within_four_bits(seed: int) -> None:
    picture = smooth(seed, 1000, 760)
    copies = [
        encode(picture, "JPEG", quality=40),
        encode(picture, "PNG"),
        encode(picture, "WEBP", quality=60),
        encode(ImageOps.scale(picture, 0.5), "JPEG", quality=80),
        encode(ImageOps.scale(picture, 0.31), "JPEG", quality=80),
        encode(ImageOps.mirror(picture), "JPEG", quality=80),
    ]
    codes, mirrors, _ = phash.hashes(
        np.stack([canonical(encode(picture, "JPEG", quality=92)), *map(canonical, copies)])
    )
    assert max(bits_apart(codes[0], code) for code in codes[1:-1]) <= 4
    assert bits_apart(codes[0], mirrors[-1]) <= 4 < bits_apart(codes[0], codes[-1])


def test_different_pictures_are_far_apart() -> None:
    codes, _, _ = phash.hashes(np.stack([canonical(encode(smooth(i), "JPEG")) for i in range(40)]))
    apart = [bits_apart(a, b) for i, a in enumerate(codes) for b in codes[:i]]
    assert min(apart) > 8


def test_the_canonical_path_is_near_imagehash_on_the_full_picture() -> None:
    """Not equal: the reduced decode is another path, hence its name; but no further than a re-encode."""
    picture = smooth(11, 1600, 1200)
    ImageDraw.Draw(picture).ellipse((300, 200, 900, 1000), fill=(20, 30, 40))
    data = encode(picture, "JPEG", quality=92)
    code = phash.hashes(canonical(data)[None])[0][0]
    assert bits_apart(code, int(str(imagehash.phash(picture)), 16)) <= 2
