"""One picture per picture that shows what was found on it, large enough to see and small enough to send."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sapiens2.tasks.compose import Composed, compose
from sapiens2.tasks.drawing import (
    draw_albedo,
    draw_box,
    draw_depth,
    draw_keypoints,
    draw_normals,
    draw_parts,
    limb_thickness,
)
from sapiens2.tasks.geometry import surface_normals, turned_view
from sapiens2.tasks.predict import Prediction

Array = np.ndarray
LEAST, MOST = 480, 1400
"""Pixels of the long side of one panel: smaller pictures are enlarged, larger ones shrunk, before anything is drawn."""
SHOWN_SCORE = 0.3
"""Keypoints below this score are not drawn."""
TURN_DEG = 30.0
_GAP = 6


def overlay(task: str, image: Array, found: Sequence[Prediction], *, least_score: float = SHOWN_SCORE) -> Array:
    """uint8 [h, w, 3]: pose and parts over the picture; maps beside it; a pointmap as depth, normals and a new view.

    image: uint8 [H, W, 3]; found: its predictions.
    """
    ratio = _ratio(image.shape[:2])
    small = _resized(image, ratio)
    if task == "pose":
        return _pose(small, found, ratio, least_score)
    whole = _shrunk(compose(task, found, image.shape[:2]), ratio)
    if task == "segmentation":
        return draw_parts(small, whole.values)
    if task == "pointmap":
        return _pointmap(small, whole, found, ratio)
    drawn = draw_normals(whole.values, whole.valid) if task == "normal" else draw_albedo(whole.values, whole.valid)
    return beside([small, _over_grey(small, drawn, whole.valid)])


def _ratio(shape: tuple[int, int]) -> float:
    long = max(shape)
    return LEAST / long if long < LEAST else min(1.0, MOST / long)


def _resized(image: Array, ratio: float, *, nearest: bool = False) -> Array:
    import cv2

    if ratio == 1:
        return image
    size = [max(1, round(side * ratio)) for side in image.shape[1::-1]]
    smooth = cv2.INTER_AREA if ratio < 1 else cv2.INTER_CUBIC
    out: Array = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if nearest else smooth)
    return out


def _shrunk(whole: Composed, ratio: float) -> Composed:
    """The maps at the panel's size; values are picked, never mixed across a silhouette."""
    valid = _resized(whole.valid.view(np.uint8), ratio, nearest=True) > 0
    return Composed(_resized(whole.values, ratio, nearest=True), _resized(whole.person, ratio, nearest=True), valid)


def _pose(small: Array, found: Sequence[Prediction], ratio: float, least_score: float) -> Array:
    out = small
    for one in found:
        if one.score is not None:
            out = draw_box(out, one.box * ratio, f"{one.score:.2f}")
    for one in sorted(found, key=lambda p: float(p.box[3] - p.box[1])):  # the largest is in front
        assert one.keypoints is not None and one.scores is not None
        box = (one.box[:4] * ratio).clip(0, [*small.shape[1::-1]] * 2)  # boxes may reach far beyond the picture
        thickness = limb_thickness(box[2:] - box[:2])  # not by the points, which a weak model heaps up
        points = (one.keypoints + 0.5) * ratio - 0.5
        out = draw_keypoints(out, points, one.scores >= least_score, thickness=thickness)
    return out


def _over_grey(small: Array, drawn: Array, valid: Array) -> Array:
    """The drawing where it holds, a dim grey picture elsewhere, to see where one is."""
    grey = np.repeat((small.mean(-1, keepdims=True) * 0.35).astype(np.uint8), 3, axis=-1)
    return np.where(valid[..., None], drawn, grey)


def _pointmap(small: Array, whole: Composed, found: Sequence[Prediction], ratio: float) -> Array:
    import cv2

    focal = float(np.median([one.focal_px or 1.0 for one in found])) * ratio if found else 1.0
    normals, holds = surface_normals(whole.values, whole.valid)
    depth = _over_grey(small, draw_depth(whole.values, whole.valid), whole.valid)
    if whole.valid.any():
        low, high = np.percentile(whole.values[..., 2][whole.valid], (2, 98))
        for colour, width in (((15, 15, 15), 4), ((255, 255, 255), 1)):
            text = (depth, f"{low:.2f} - {high:.2f} m", (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, width)
            cv2.putText(*text, cv2.LINE_AA)
    turned = turned_view(whole.values, small, whole.valid, TURN_DEG, focal)
    return beside([small, depth, _over_grey(small, draw_normals(normals, holds), holds), turned])


def beside(panels: Sequence[Array]) -> Array:
    """Panels of one size in a row, or for wide ones below each other in two columns, narrow gaps between them."""
    height, width = panels[0].shape[:2]
    columns = 2 if len(panels) > 2 and width > height else len(panels)
    if len(panels) == 2 and width > 1.4 * height:
        columns = 1
    rows = -(-len(panels) // columns)
    out = np.full((rows * height + (rows - 1) * _GAP, columns * width + (columns - 1) * _GAP, 3), 24, np.uint8)
    for index, panel in enumerate(panels):
        y, x = index // columns * (height + _GAP), index % columns * (width + _GAP)
        out[y : y + height, x : x + width] = panel
    return out
