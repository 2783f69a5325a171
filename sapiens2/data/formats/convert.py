"""Out of the 308 keypoints: COCO-17, COCO-WholeBody and OpenPose's JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sapiens2.data.formats.vocabularies import layout
from sapiens2.tasks.vocabulary import keypoints

Array = np.ndarray
# Body-25 of OpenPose by name; neck and mid_hip lie halfway between the sides. [OpenPose, doc/02_output.md]
BODY_25 = (
    "nose",
    "neck",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "mid_hip",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_eye",
    "left_eye",
    "right_ear",
    "left_ear",
    "left_big_toe",
    "left_small_toe",
    "left_heel",
    "right_big_toe",
    "right_small_toe",
    "right_heel",
)
_HALFWAY = {"neck": ("left_shoulder", "right_shoulder"), "mid_hip": ("left_hip", "right_hip")}
_CERTAIN = np.array([np.inf, np.inf, 1])
_HANDS = {"hand_left_keypoints_2d": slice(91, 112), "hand_right_keypoints_2d": slice(112, 133)}


def coco_annotation(points: Array, name: str = "coco17") -> dict[str, Any]:
    """The keypoints of one person, [308, 3] x, y, visibility, as the keys of a COCO annotation.

    `wholebody133` gives COCO-WholeBody's five lists, every other layout one list.
    """
    out = layout(name).from_308(np.asarray(points, float))
    if name != "wholebody133":
        return {"keypoints": out.ravel().tolist(), "num_keypoints": int((out[:, 2] > 0).sum())}
    names = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
    split = np.split(out, np.cumsum([17, 6, 68, 21]))
    lists: dict[str, Any] = {key: part.ravel().tolist() for key, part in zip(names, split, strict=True)}
    return lists | {"num_keypoints": int((split[0][:, 2] > 0).sum())}


Person = tuple[int, str, tuple[int, int], Array, Array | None, float | None]
"""Image id, file name, (height, width), points [308, 3], box or None, square pixels or None: the area of the box."""


def coco_file(people: Sequence[Person], name: str) -> dict[str, Any]:
    """A whole COCO file, with one annotation a person; without a box, that of the labelled points."""
    images: dict[int, dict[str, Any]] = {}
    annotations = []
    for number, (image_id, file_name, (height, width), points, box, area) in enumerate(people, 1):
        images[image_id] = {"id": image_id, "file_name": file_name, "width": width, "height": height}
        annotation: dict[str, Any] = {"id": number, "image_id": image_id, "category_id": 1, "iscrowd": 0}
        x0, y0, x1, y1 = _around(points) if box is None else (float(v) for v in box)
        annotation |= {"bbox": [x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
        if area is not None:
            annotation["area"] = area
        annotations.append(annotation | coco_annotation(points, name))
    which = layout("coco17" if name == "wholebody133" else name)
    category = {"id": 1, "name": "person", "supercategory": "person", "keypoints": list(which.names), "skeleton": []}
    return {"images": list(images.values()), "annotations": annotations, "categories": [category]}


def _around(points: Array) -> tuple[float, float, float, float]:
    """The tight box of the labelled points; an empty one at COCO's origin without any."""
    seen = np.asarray(points, float)
    seen = seen[seen[:, 2] > 0, :2] if (seen[:, 2] > 0).any() else np.full((1, 2), -0.5)
    (x0, y0), (x1, y1) = seen.min(0).tolist(), seen.max(0).tolist()
    return x0, y0, x1, y1


def openpose(people: Sequence[Array]) -> dict[str, Any]:
    """One picture's people, each [308, 3] x, y, score, as OpenPose writes them: body 25 and hands.

    Its confidences end at 1, so a visibility of 2 becomes 1. The face list is empty: OpenPose's 70 points have no
    counterpart for most of it.
    """
    return {"version": 1.3, "people": [_openpose_person(np.minimum(points, _CERTAIN)) for points in people]}


def _openpose_person(points: Array) -> dict[str, Any]:
    ids = keypoints()

    def place(name: str) -> Array:
        if name not in _HALFWAY:
            return points[ids.id(name)]
        a, b = (points[ids.id(side)] for side in _HALFWAY[name])
        return np.array([*(a[:2] + b[:2]) / 2, min(a[2], b[2])]) if min(a[2], b[2]) > 0 else np.zeros(3)

    body = np.stack([place(name) for name in BODY_25])
    body[body[:, 2] <= 0] = 0
    whole = layout("wholebody133").from_308(points)
    person: dict[str, Any] = {"person_id": [-1], "pose_keypoints_2d": body.ravel().tolist(), "face_keypoints_2d": []}
    return person | {key: whole[part].ravel().tolist() for key, part in _HANDS.items()}
