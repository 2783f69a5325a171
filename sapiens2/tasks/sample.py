"""One labelled picture, typed, and the geometry that moves all its labels together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sapiens2.data.synthetic import Scene
from sapiens2.tasks.vocabulary import keypoints, parts

Array = np.ndarray


@dataclass(frozen=True)
class Sample:
    """A picture and whichever labels it has; H, W and axes as in `sapiens2.data.synthetic.shot`."""

    image: Array  # uint8 [H, W, 3]
    mask: Array | None = None  # uint8 [H, W] part class, 255 unknown
    valid: Array | None = None  # bool [H, W] where normals, points and albedo hold
    normals: Array | None = None  # float32 [H, W, 3]
    points: Array | None = None  # float32 [H, W, 3] metres
    albedo: Array | None = None  # float32 [H, W, 3] sRGB
    intrinsics: Array | None = None  # float32 [3, 3]
    keypoints: Array | None = None  # float32 [308, 2]
    labelled: Array | None = None  # bool [308] keypoints that count
    box: Array | None = None  # float32 [4] x0, y0, x1, y1 pixels, the person; None: the whole picture
    area: float | None = None  # square pixels that the person covers; None: the extent of its keypoints


def labelled_keypoints(visibility: Array) -> Array:
    """Which of the 308 count: seen ones, and hidden ones inside the frame unless they belong to the face.

    A hidden elbow can be told from the body; a hidden eyelash cannot, and annotators do not mark it either.
    """
    face = np.array(keypoints().groups) == "face"
    return (visibility == 2) | ((visibility == 1) & ~face)


def from_scene(scene: Scene) -> Sample:
    """A rendered scene as a sample with every label."""
    return Sample(
        image=scene.image,
        mask=scene.mask,
        valid=scene.valid,
        normals=scene.normals,
        points=scene.points,
        albedo=scene.albedo,
        intrinsics=scene.intrinsics,
        keypoints=scene.keypoints,
        labelled=labelled_keypoints(scene.visibility),
        box=scene.box,
    )


def _mirror(array: Array | None) -> Array | None:
    return None if array is None else np.ascontiguousarray(array[:, ::-1])


def flip(sample: Sample) -> Sample:
    """The mirror image: sides swap, x of normals and points turns round; c_x becomes W - 1 - c_x, skew its negative."""
    width = sample.image.shape[1]
    out = replace(
        sample,
        image=np.ascontiguousarray(sample.image[:, ::-1]),
        valid=_mirror(sample.valid),
        normals=_mirror(sample.normals),
        points=_mirror(sample.points),
        albedo=_mirror(sample.albedo),
    )
    negate = np.array([-1, 1, 1], np.float32)
    changes: dict[str, Any] = {}
    if sample.mask is not None:
        lookup = np.arange(256, dtype=np.uint8)
        lookup[: len(parts())] = parts().flip
        changes["mask"] = lookup[sample.mask[:, ::-1]]
    for name in ("normals", "points"):
        array = getattr(out, name)
        if array is not None:
            changes[name] = array * negate
    if sample.intrinsics is not None:
        changes["intrinsics"] = sample.intrinsics.copy()
        changes["intrinsics"][0, 2] = width - 1 - sample.intrinsics[0, 2]
        changes["intrinsics"][0, 1] = 0 - sample.intrinsics[0, 1]  # from 0, so that none stays +0
    if sample.keypoints is not None and sample.labelled is not None:
        order = keypoints().flip
        mirrored = sample.keypoints[order].copy()
        mirrored[:, 0] = width - 1 - mirrored[:, 0]
        changes["keypoints"], changes["labelled"] = mirrored, sample.labelled[order]
    if sample.box is not None:
        x0, y0, x1, y1 = sample.box
        changes["box"] = np.array([width - 1 - x1, y0, width - 1 - x0, y1], np.float32)
    return replace(out, **changes)
