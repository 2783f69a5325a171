"""Lines of overlaid text without a network: flat letters of one colour, standing in a row.

What a caption has and a street sign seldom has: every letter has the same flat colour, with a crisp border; the letters
have one height, one stroke, one baseline parallel to the picture's edge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.models.scorer import Pixels, within
from curation.models.text_overlay import TextBox

Plane = NDArray[np.float32]
Letters = NDArray[np.float32]  # [N, 8]: x0, y0, x1, y1, fill, stroke, luminance, crispness

_LEVELS = (40, 70, 100, 130, 160, 190, 215, 235)
_MIN_LETTERS = 4
_MIN_HEIGHT_PX = 7
_MIN_CRISP = 60.0  # mean luminance step over a letter's border
_MAX_SPREAD = 14.0  # standard deviation of luminance within a letter


class LineTextDetector:
    """Connected regions at eight luminance levels, sifted for letters, chained into horizontal lines."""

    name = "builtin-text"

    def __init__(self, *, long_side_px: int = 640, revision: str = "1") -> None:
        self.long_side_px = long_side_px
        self.key = f"{self.name}/{revision}-{long_side_px}px"

    def detect(self, pixels: Pixels) -> list[TextBox]:
        import cv2

        grey = np.asarray(cv2.cvtColor(within(pixels, self.long_side_px), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        lines: list[TextBox] = []
        for level in _LEVELS:
            for bright in (True, False):
                mask = (grey > level) if bright else (grey <= level)
                letters = letter_candidates(mask.astype(np.uint8), grey)
                lines.extend(chain_lines(letters))
        scale = np.array([pixels.shape[1] / grey.shape[1], pixels.shape[0] / grey.shape[0]], dtype=np.float32)
        return [TextBox(line.quad * scale, line.score) for line in lines]


def letter_candidates(mask: NDArray[np.uint8], grey: NDArray[np.uint8]) -> Letters:
    """Regions of the mask that could be letters: size, fill, flat inside, crisp border. Shape [N, 8]."""
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    w, h, area = (stats[1:, column] for column in (2, 3, 4))
    fill = area / np.maximum(w * h, 1)
    tall = (h >= _MIN_HEIGHT_PX) & (h <= 0.35 * mask.shape[0])
    shape = (w <= 3.0 * h) & (w >= 0.08 * h) & (fill > 0.15) & (area >= 12)
    chosen = np.flatnonzero(tall & shape)
    if len(chosen) < _MIN_LETTERS or count < _MIN_LETTERS:
        return np.zeros((0, 8), dtype=np.float32)
    distance = np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, 3), dtype=np.float32)
    regions = np.asarray(labels, dtype=np.int32)
    rows = [_measure(regions, grey, distance, stats[i + 1], int(i) + 1) for i in chosen]
    letters = np.array([row[:8] for row in rows], dtype=np.float32)
    spread = np.array([row[8] for row in rows])
    flat = (spread <= _MAX_SPREAD) & (letters[:, 7] >= _MIN_CRISP)
    return letters[flat]


def _measure(
    labels: NDArray[np.int32], grey: NDArray[np.uint8], distance: Plane, stat: NDArray[Any], label: int
) -> list[float]:
    """x0, y0, x1, y1, fill, stroke width, median luminance, border step, luminance spread of one region."""
    import cv2

    x, y, w, h, area = (int(v) for v in stat[:5])
    y0, y1, x0, x1 = max(y - 2, 0), y + h + 2, max(x - 2, 0), x + w + 2
    inside = (labels[y0:y1, x0:x1] == label).astype(np.uint8)
    window = grey[y0:y1, x0:x1]
    ring = cv2.dilate(inside, np.ones((5, 5), np.uint8)) - cv2.dilate(inside, np.ones((3, 3), np.uint8))
    core = inside & (distance[y0:y1, x0:x1] > 1.0)
    values = window[core > 0] if core.any() else window[inside > 0]
    median = float(np.median(values))
    around = float(window[ring > 0].mean()) if ring.any() else median
    stroke = 2.0 * area / max(float(_perimeter(inside)), 1.0)
    return [x, y, x + w, y + h, area / (w * h), stroke, median, abs(median - around), float(values.std())]


def _perimeter(mask: NDArray[np.uint8]) -> float:
    import cv2

    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return sum(cv2.arcLength(contour, True) for contour in contours)


def chain_lines(letters: Letters) -> list[TextBox]:
    """Rows of at least four letters of like height, stroke and luminance, near each other on one baseline."""
    if len(letters) < _MIN_LETTERS:
        return []
    order = np.argsort(letters[:, 0], kind="stable")
    letters = letters[order]
    parent = np.arange(len(letters))
    for i, j in zip(*np.nonzero(np.triu(_neighbours(letters), 1)), strict=True):
        _join(parent, int(i), int(j))
    roots = np.array([_root(parent, i) for i in range(len(letters))])
    groups = [letters[roots == root] for root in np.unique(roots)]
    return [line for line in (_line(group) for group in groups if len(group) >= _MIN_LETTERS) if line is not None]


def _neighbours(letters: Letters) -> NDArray[np.bool_]:
    """Which pairs may stand side by side in one word or line: [N, N]."""
    x0, y0, x1, y1, _, stroke, light, _ = letters.T
    height = y1 - y0
    taller = np.maximum(height[:, None], height)
    gap = np.maximum(x0[:, None], x0) - np.minimum(x1[:, None], x1)
    base = np.minimum(np.abs(y1[:, None] - y1), np.abs(y0[:, None] - y0))
    near = (gap < 1.0 * taller) & (gap > -0.3 * taller)
    level = (base < 0.12 * taller) & (np.minimum(height[:, None], height) > 0.5 * taller)
    wider = np.maximum(stroke[:, None], stroke)
    alike = (np.abs(light[:, None] - light) < 18) & (np.minimum(stroke[:, None], stroke) > 0.5 * wider)
    return np.asarray(near & level & alike)


def _line(group: Letters) -> TextBox | None:
    """The box of a chain, or None when its letters are too unlike or all alike (railings, windows) to be text."""
    x0, y0 = group[:, 0].min(), group[:, 1].min()
    x1, y1 = group[:, 2].max(), group[:, 3].max()
    heights = group[:, 3] - group[:, 1]
    if x1 - x0 < 2.0 * (y1 - y0) or y1 - y0 > 1.8 * float(np.median(heights)):
        return None
    widths, fills = group[:, 2] - group[:, 0], group[:, 4]
    if float(widths.std() / widths.mean()) < 0.08 and float(fills.std()) < 0.04:
        return None
    quad = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=np.float32)
    return TextBox(quad, float(min(1.0, group[:, 7].mean() / 128.0)))


def _root(parent: NDArray[np.int64], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = int(parent[i])
    return i


def _join(parent: NDArray[np.int64], i: int, j: int) -> None:
    a, b = _root(parent, i), _root(parent, j)
    parent[max(a, b)] = min(a, b)
