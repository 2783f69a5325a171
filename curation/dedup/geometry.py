"""Whether two pictures show the same exposure: align one onto the other, then compare what they share.

A descriptor proposes pairs, pictures confirm them. Matching keypoints vote for a similarity (shift, scale, small
rotation, optionally a flip), the correlation itself refines it (ECC, Evangelidis and Psarakis 2008), and the warped
picture is correlated with the other block by block. Two poses of one person before one background align perfectly and
differ where the person is, so the textured blocks decide, not the whole.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curation.dedup.keypoints import MIRROR, Keypoints, borders, grey, keypoints

THUMBNAIL_PX = 320  # long side of the pictures to compare
_RATIO = 0.8  # Lowe's ratio test
_RANSAC_PX = 3.0
_MIN_MATCHES = 6
_SCALES = (0.2, 5.0)
_MAX_ROTATION_DEG = 15.0
_HOPELESS = 0.7  # correlation below which no refinement is tried
_REFINEMENT_STEPS = 40
_BLOCKS = 12  # the shared part is cut into 12 x 12 blocks
_MIN_BLOCK_PX = 16
_MIN_SHARED_PX = 256
_TEXTURE = 6.0  # grey levels of deviation above which a block can be correlated
_BLOCK_CORRELATION = 0.9  # of a block that shows the same
Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Transform = NDArray[np.float64]  # 2 x 3: from the pixels of the first picture to those of the second


@dataclass(frozen=True)
class Alignment:
    """How well two pictures agree after alignment. All zero when no alignment was found."""

    inliers: int = 0  # keypoint matches that agree on the alignment
    correlation: float = 0.0  # over the shared part, -1..1
    agreement: float = 0.0  # share of the texture that lies in blocks that correlate, 0..1
    mirrored: bool = False


@dataclass(frozen=True)
class Sketch:
    """A picture ready to be compared: grey, long side <= 320 px, its content without borders, its keypoints."""

    picture: Picture
    content: Mask
    keypoints: Keypoints


def sketch(picture: Picture) -> Sketch:
    """From uint8 [H, W] or [H, W, 3] RGB of any size."""
    import cv2

    small = grey(picture, THUMBNAIL_PX)
    top, bottom, left, right = borders(small)
    content = np.zeros(small.shape, np.uint8)
    content[top : small.shape[0] - bottom, left : small.shape[1] - right] = 1
    # Two pixels more: the edge of a bar is blurred into the picture by the encoder and by the shrinking.
    content = np.asarray(cv2.erode(content, np.ones((5, 5)), borderType=cv2.BORDER_CONSTANT, borderValue=1.0))
    return Sketch(small, content > 0, keypoints(small))


def align(a: Sketch, b: Sketch) -> Alignment:
    """The better of the direct and the mirrored alignment of `a` onto `b`."""
    direct = _align(a, b, mirrored=False)
    # Matches that agree as they are leave nothing for the mirror image to explain.
    if direct.agreement >= _BLOCK_CORRELATION:
        return direct
    return max(direct, _align(_flip(a), b, mirrored=True), key=lambda found: found.agreement)


def _flip(a: Sketch) -> Sketch:
    xy = a.keypoints.xy * np.array([-1, 1], np.float32) + np.array([a.picture.shape[1] - 1, 0], np.float32)
    points = Keypoints(xy, a.keypoints.descriptors[:, MIRROR])
    return Sketch(np.ascontiguousarray(a.picture[:, ::-1]), np.ascontiguousarray(a.content[:, ::-1]), points)


def _align(a: Sketch, b: Sketch, *, mirrored: bool) -> Alignment:
    import cv2

    first, second = _matches(a.keypoints.descriptors, b.keypoints.descriptors)
    if len(first) < _MIN_MATCHES:
        return Alignment()
    source, target = a.keypoints.xy[first], b.keypoints.xy[second]
    transform, inlier = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=_RANSAC_PX, maxIters=2000
    )
    if transform is None or not _plausible(np.asarray(transform, dtype=np.float64)):
        return Alignment()
    return _compare(a, b, np.asarray(transform, dtype=np.float64), int(inlier.sum()), mirrored)


def _matches(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Mutual nearest neighbours that pass the ratio test. Whole numbers below 2^24, so float32 is exact here."""
    if len(a) < 2 or len(b) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    squared = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2 * (a @ b.T)
    nearest = squared.argmin(axis=1)
    rows = np.arange(len(a))
    runner_up = np.partition(squared, 1, axis=1)[:, 1]
    good = (squared[rows, nearest] < _RATIO**2 * runner_up) & (squared.argmin(axis=0)[nearest] == rows)
    return rows[good], nearest[good]


def _scale(transform: Transform) -> float:
    return float(np.sqrt(abs(np.linalg.det(transform[:, :2]))))


def _plausible(transform: Transform) -> bool:
    rotation = abs(float(np.degrees(np.arctan2(transform[1, 0], transform[0, 0]))))
    return _SCALES[0] <= _scale(transform) <= _SCALES[1] and rotation <= _MAX_ROTATION_DEG


def _compare(a: Sketch, b: Sketch, transform: Transform, inliers: int, mirrored: bool) -> Alignment:
    """Correlate the two pictures in the frame of `b`, before and after the alignment is refined."""
    import cv2

    if _scale(transform) < 1:
        # The frame is the closer view's, which the other one covers, so that little of it is left to guess.
        a, b, transform = b, a, np.asarray(cv2.invertAffineTransform(transform), dtype=np.float64)
    # A shrunk picture holds detail the other cannot have: both are smoothed to the coarser of the two grids.
    scale = _scale(transform)
    source, target = _smooth(a.picture, 1 / scale), _smooth(b.picture, scale)
    warped, shared = _warp(source, a.content, transform, b.content)
    if shared.sum() < _MIN_SHARED_PX or _correlation(warped[shared], target[shared]) < _HOPELESS:
        return Alignment(inliers=inliers, mirrored=mirrored)
    transform = _refine(source, target, b.content, transform)
    warped, shared = _warp(source, a.content, transform, b.content)
    if shared.sum() < _MIN_SHARED_PX:
        return Alignment(inliers=inliers, mirrored=mirrored)
    correlation = _correlation(warped[shared], target[shared])
    return Alignment(inliers, round(correlation, 4), round(_agreement(warped, target, shared), 4), mirrored)


def _smooth(picture: Picture, shrink: float) -> Picture:
    import cv2

    return np.asarray(cv2.GaussianBlur(picture, (0, 0), max(1.0, shrink)), dtype=np.uint8)


def _warp(picture: Picture, content: Mask, transform: Transform, target: Mask) -> tuple[Picture, Mask]:
    """The picture in the frame of the other, and where both have content."""
    import cv2

    size = (target.shape[1], target.shape[0])
    warped = cv2.warpAffine(picture, transform, size, flags=cv2.INTER_LINEAR)
    shared = cv2.warpAffine(content.astype(np.uint8), transform, size, flags=cv2.INTER_NEAREST) > 0
    return np.asarray(warped, dtype=np.uint8), shared & target


def _refine(picture: Picture, target: Picture, content: Mask, transform: Transform) -> Transform:
    """The affine transform near `transform` with the highest correlation; `transform` where the search diverges."""
    import cv2

    inverse = cv2.invertAffineTransform(transform).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _REFINEMENT_STEPS, 1e-4)
    mask = content.astype(np.uint8) * 255
    try:
        _, found = cv2.findTransformECC(target, picture, inverse, cv2.MOTION_AFFINE, stop, mask, 3)
    except cv2.error:  # how OpenCV reports that the search did not converge
        return transform
    return np.asarray(cv2.invertAffineTransform(found.astype(np.float64)), dtype=np.float64)


def _correlation(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> float:
    a, b = x.astype(np.float64), y.astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    lengths = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / lengths if lengths > 0 else 0.0


def _agreement(a: Picture, b: Picture, shared: Mask) -> float:
    """Of the texture (deviation summed over textured blocks), the share in blocks that correlate; 0 without texture."""
    rows, columns = np.flatnonzero(shared.any(axis=1)), np.flatnonzero(shared.any(axis=0))
    ys = np.linspace(rows[0], rows[-1] + 1, _BLOCKS + 1).astype(int)
    xs = np.linspace(columns[0], columns[-1] + 1, _BLOCKS + 1).astype(int)
    agreeing, total = 0.0, 0.0
    for top, bottom in itertools.pairwise(ys):
        for left, right in itertools.pairwise(xs):
            part = shared[top:bottom, left:right]
            if part.sum() < _MIN_BLOCK_PX:
                continue
            x, y = a[top:bottom, left:right][part], b[top:bottom, left:right][part]
            texture = float(max(x.std(), y.std()))
            if texture >= _TEXTURE:
                total += texture
                agreeing += texture * (_correlation(x, y) >= _BLOCK_CORRELATION)
    return agreeing / total if total > 0 else 0.0
