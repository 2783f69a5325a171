"""Several persons of a picture joined: each pixel from the person in whose region it lies most central."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sapiens2.tasks.predict import Prediction
from sapiens2.tasks.regions import Window

Array = np.ndarray
MAPS = {"segmentation": "labels", "normal": "normals", "pointmap": "points", "albedo": "albedo"}
"""The field of a prediction that holds a task's map."""


@dataclass(frozen=True)
class Composed:
    """A task's map on the whole picture."""

    values: Array  # [H, W] or [H, W, 3], 0 where nobody was looked at
    person: Array  # int16 [H, W] whose answer it is, -1 for nobody's
    valid: Array  # bool [H, W] a person's pixel, or any pixel looked at where no model of the parts was given


def compose(task: str, found: Sequence[Prediction], shape: tuple[int, int]) -> Composed:
    """The maps of a picture's persons on its shape (height, width). Raises ValueError for pose, which has no map."""
    if task not in MAPS:
        raise ValueError(f"{task} has no map to compose: use the keypoints of each prediction")
    owner = owners(found, shape)
    empty: Array = np.zeros(shape, np.uint8) if task == "segmentation" else np.zeros((*shape, 3), np.float32)
    values = empty.astype(getattr(found[0], MAPS[task]).dtype) if found else empty
    valid = np.zeros(shape, bool)
    for index, one in enumerate(found):
        x0, y0, x1, y1 = one.window
        mine = owner[y0:y1, x0:x1] == index
        values[y0:y1, x0:x1][mine] = getattr(one, MAPS[task])[mine]
        if one.labels is not None:
            valid[y0:y1, x0:x1] |= mine & (one.labels > 0)
        else:
            valid[y0:y1, x0:x1] |= mine if one.valid is None else mine & one.valid
    return Composed(values, owner, valid)


def owners(found: Sequence[Prediction], shape: tuple[int, int]) -> Array:
    """int16 [H, W]: the person whose region has a pixel most central, -1 where none has it; ties to the first."""
    owner = np.full(shape, -1, np.int16)
    best = np.zeros(shape, np.float32)
    for index, one in enumerate(found):
        x0, y0, x1, y1 = one.window
        central = _centrality(one, one.window)
        better = central > best[y0:y1, x0:x1]
        owner[y0:y1, x0:x1][better] = index
        best[y0:y1, x0:x1][better] = central[better]
    return owner


def _centrality(one: Prediction, window: Window) -> Array:
    """1 in the middle of the region, towards 0 at its edge, by the nearer edge; float32 over the window."""
    assert one.region is not None
    x0, y0, x1, y1 = window
    sides = []
    for low, high, start, stop in ((one.region[0], one.region[2], x0, x1), (one.region[1], one.region[3], y0, y1)):
        t = np.abs(2 * (np.arange(start, stop) - low) / max(high - low, 1e-6) - 1)
        sides.append((1 - t).astype(np.float32))
    return np.minimum(sides[0][None, :], sides[1][:, None]).clip(1e-6, 1)
