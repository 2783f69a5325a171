"""The answers of one picture as files: JSON for keypoints, PNG for masks, normals and albedo, NPZ and PLY for geometry.

Everything is at the picture's own size. What each file holds is in docs/predict.md.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from sapiens2.tasks.compose import MAPS, Composed, compose
from sapiens2.tasks.drawing import draw_albedo, draw_normals, part_colours
from sapiens2.tasks.ply import ply_bytes
from sapiens2.tasks.predict import Prediction
from sapiens2.tasks.vocabulary import keypoints, parts

Array = np.ndarray
COCO_BODY = 17
_DECIMALS = 2  # of pixels and scores in JSON


def answer_files(task: str, image: Array, found: Sequence[Prediction]) -> dict[str, bytes]:
    """Contents by file ending, for a picture uint8 [H, W, 3] and its persons."""
    if task == "pose":
        return {"json": json.dumps(pose_record(image.shape[:2], found)).encode()}
    whole = compose(task, found, image.shape[:2])
    if task == "segmentation":
        return {"png": _palette_png(whole.values)}
    if task == "albedo":
        return {"png": _png(draw_albedo(whole.values, whole.valid))}
    if task == "normal":
        arrays = {"normals": whole.values.astype(np.float16), "valid": whole.valid, "person": whole.person}
        return {"png": _png(draw_normals(whole.values, whole.valid)), "npz": _npz(arrays)}
    return _pointmap(image, whole, found)


def pose_record(shape: tuple[int, int], found: Sequence[Prediction]) -> dict[str, Any]:
    """308 keypoints as x, y, score per person, and the 17 of COCO among them in COCO's order."""
    body = coco_ids()
    people = []
    for one in found:
        assert one.keypoints is not None and one.scores is not None
        rows = np.concatenate([one.keypoints, one.scores[:, None]], 1).astype(np.float64).round(3)
        people.append({**person_record(one), "keypoints": rows.tolist(), "coco17": rows[body].tolist()})
    return {"width": shape[1], "height": shape[0], "people": people}


def coco_ids() -> Array:
    """Ids of the COCO 17 in COCO's order, [17]."""
    numbers = keypoints().wholebody
    return np.array([int(np.flatnonzero(numbers == k)[0]) for k in range(COCO_BODY)])


def person_record(one: Prediction) -> dict[str, Any]:
    """What every task says of a person: box, detector's score, the region looked at, and the camera of a pointmap."""
    record: dict[str, Any] = {"box": np.asarray(one.box, np.float64).round(_DECIMALS).tolist()}
    record["score"] = None if one.score is None else round(float(one.score), 4)
    if one.region is not None:
        record["region"] = np.asarray(one.region, np.float64).round(_DECIMALS).tolist()
    if one.focal_px is not None and one.scale is not None:
        record |= {"focal_px": round(one.focal_px, 3), "scale": round(one.scale, 6)}
    return record


def person_row(task: str, one: Prediction) -> dict[str, Any]:
    """A person in one row of numbers: the record, and what the task says in few of them."""
    row = person_record(one)
    if task == "pose":
        assert one.keypoints is not None and one.scores is not None
        rows = np.concatenate([one.keypoints, one.scores[:, None]], 1)
        return row | {"keypoints": rows.astype(np.float64).round(3).ravel().tolist()}
    if task == "segmentation":
        assert one.labels is not None
        return row | {"part_pixels": np.bincount(one.labels.ravel(), minlength=len(parts())).tolist()}
    values = getattr(one, MAPS[task])
    seen = values.reshape(-1, 3) if one.valid is None else values[one.valid]
    if not len(seen):
        return row
    if task == "pointmap":
        return row | {"depth_m": round(float(np.median(seen[:, 2])), 4)}
    mean = seen.mean(0, dtype=np.float64)
    if task == "normal":
        return row | {"mean_normal": (mean / max(float(np.linalg.norm(mean)), 1e-9)).round(4).tolist()}
    return row | {"mean_albedo": mean.round(4).tolist()}


def _pointmap(image: Array, whole: Composed, found: Sequence[Prediction]) -> dict[str, bytes]:
    arrays = {
        "points": whole.values.astype(np.float32),
        "valid": whole.valid,
        "person": whole.person,
        "focal_px": np.array([one.focal_px or np.nan for one in found], np.float32),
        "principal_point": np.array([(image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2], np.float32),
    }
    return {"npz": _npz(arrays), "ply": ply_bytes(whole.values[whole.valid], image[whole.valid])}


def _npz(arrays: dict[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _png(picture: Array) -> bytes:
    import cv2

    done, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    assert done
    return data.tobytes()


def _palette_png(labels: Array) -> bytes:
    """A PNG whose pixel values are the class ids, shown in the colours of the parts."""
    from PIL import Image

    picture = Image.fromarray(labels)
    picture.putpalette(part_colours().tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
