"""From pictures to answers: crop each person, run the model in batches, bring the output back to the picture.

Pose crops follow the test protocol of the release (box padded by 1.25, aspect of the model's input, UDP corners); dense
tasks take the whole picture, or the padded box where boxes are given. Everything is returned in the picture's pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sapiens2.model.normalise import normalise
from sapiens2.tasks.build import TaskModel
from sapiens2.tasks.heatmaps import decode, to_image

Array = np.ndarray
Detector = Callable[[Array], Array]
"""uint8 [H, W, 3] -> person boxes [N, 4] as x0, y0, x1, y1 pixels."""
PADDING = 1.25
DEFAULT_INPUT = {"tiny": (128, 96)}


@dataclass(frozen=True)
class Prediction:
    """One person's answer in the pixels of its picture; fields that the task does not give are None.

    Maps cover the picture; outside the box they are 0 (class 0).
    """

    box: Array  # float32 [4] x0, y0, x1, y1, edges of the region that was looked at
    keypoints: Array | None = None  # float32 [308, 2]
    scores: Array | None = None  # float32 [308]
    labels: Array | None = None  # uint8 [H, W]
    normals: Array | None = None  # float32 [H, W, 3] unit
    points: Array | None = None  # float32 [H, W, 3] metres
    scale: float | None = None  # canonical points per metre: the focal length is input width / scale
    albedo: Array | None = None  # float32 [H, W, 3] sRGB


@torch.inference_mode()
def forward(model: TaskModel, crops: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """Finished outputs of normalised crops [B, 3, h, w] on a grid of `size` (height, width) over the same region.

    pose: keypoints [B, 308, 2] in pixels of that grid (corners aligned) and scores; segmentation: labels; the others:
    maps [B, 3, H, W], normals unit, points metric, albedo in [0, 1].
    """
    model.eval()
    out = model(crops)
    if model.task == "pose":
        xy, scores = decode(out["heatmaps"])
        h, w = out["heatmaps"].shape[-2:]
        return {"keypoints": to_image(xy, size, (h, w)), "scores": scores}

    def resized(x: Tensor) -> Tensor:
        return F.interpolate(x.float(), size, mode="bilinear", align_corners=False)

    if model.task == "segmentation":
        return {"labels": resized(out["logits"]).argmax(1).to(torch.uint8)}
    if model.task == "normal":
        return {"normals": F.normalize(resized(out["normals"]), dim=1)}
    if model.task == "albedo":
        return {"albedo": resized(out["albedo"]).clamp(0, 1)}
    scale = out["scale"].float().clamp(min=1e-3)
    return {"points": resized(out["points"]) / scale[:, None, None, None], "scale": scale}


def pose_region(box: Array, aspect: float, padding: float = PADDING) -> Array:
    """The region [x0, y0, x1, y1] around a box: padded, then grown to width / height = aspect."""
    x0, y0, x1, y1 = np.asarray(box, np.float64)
    w, h = max(x1 - x0, 1.0) * padding, max(y1 - y0, 1.0) * padding
    w, h = max(w, h * aspect), max(h, w / aspect)
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    return np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def crop(image: Array, region: Array, size: tuple[int, int]) -> Array:
    """The region of an image, resampled to size (height, width), uint8; what lies outside the image is 0.

    The centres of the crop's corner pixels fall on the region's corners (UDP). Shrinking averages.
    """
    import cv2

    height, width = size
    x0, y0, x1, y1 = region
    sx, sy = (x1 - x0) / (width - 1), (y1 - y0) / (height - 1)
    # cv2 does not average when warping: blur first by the amount that shrinking would lose.
    blur = max(sx, sy)
    if blur > 1.5:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * blur)
    matrix = np.array([[sx, 0, x0], [0, sy, y0]])
    out: Array = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return out


def paste(values: Array, region: Array, shape: tuple[int, int], nearest: bool) -> Array:
    """A crop's map [h, w, ...] back in an image of shape (height, width); 0 outside the region."""
    import cv2

    h, w = values.shape[:2]
    x0, y0, x1, y1 = region
    sx, sy = (w - 1) / (x1 - x0), (h - 1) / (y1 - y0)
    matrix = np.array([[sx, 0, -x0 * sx], [0, sy, -y0 * sy]])
    flags = (cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    out: Array = cv2.warpAffine(values, matrix, (shape[1], shape[0]), flags=flags)
    return out


def predict(
    task_model: TaskModel,
    images: Sequence[Array],
    *,
    boxes: Sequence[Array] | None = None,
    detector: Detector | None = None,
    input_size: tuple[int, int] | None = None,
    batch: int = 8,
) -> list[list[Prediction]]:
    """One list of predictions per image, one prediction per box.

    images: uint8 [H, W, 3] RGB, any size. boxes: per image [N, 4] as x0, y0, x1, y1 pixels; else `detector` finds them;
    else, and where it finds nobody, the whole image is one box. input_size: (height, width) of the network, default
    1024 x 768, 128 x 96 for tiny. Raises ValueError for images that are not uint8 RGB or boxes of another number.
    """
    if boxes is not None and len(boxes) != len(images):
        raise ValueError(f"{len(boxes)} lists of boxes for {len(images)} images: give one list per image")
    for index, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"image {index} is {image.dtype} {list(image.shape)}: give uint8 [height, width, 3] in RGB"
            )
    size = input_size or DEFAULT_INPUT.get(task_model.size, (1024, 768))
    jobs = [
        (index, region)
        for index, image in enumerate(images)
        for region in _regions(task_model.task, image, None if boxes is None else boxes[index], detector, size)
    ]
    device = next(task_model.parameters()).device
    results: list[list[Prediction]] = [[] for _ in images]
    for start in range(0, len(jobs), batch):
        part = jobs[start : start + batch]
        crops = np.stack([crop(images[index], region, size) for index, region in part])
        out = forward(task_model, normalise(torch.from_numpy(crops).to(device)), size)
        arrays = {name: tensor.cpu().numpy() for name, tensor in out.items()}
        for row, (index, region) in enumerate(part):
            one = {name: array[row] for name, array in arrays.items()}
            results[index].append(_place(one, region, images[index].shape[:2], size))
    return results


def _regions(
    task: str, image: Array, boxes: Array | None, detector: Detector | None, size: tuple[int, int]
) -> list[Array]:
    height, width = image.shape[:2]
    whole = np.array([0.0, 0.0, width - 1.0, height - 1.0])
    if boxes is None and detector is not None:
        boxes = detector(image)
    if boxes is None or not len(boxes):
        return [pose_region(whole, size[1] / size[0], 1.0) if task == "pose" else whole]
    return [pose_region(box, size[1] / size[0]) for box in boxes]


def _place(out: dict[str, Array], region: Array, shape: tuple[int, int], size: tuple[int, int]) -> Prediction:
    box = region.astype(np.float32)
    if "keypoints" in out:
        step = np.array([(region[2] - region[0]) / (size[1] - 1), (region[3] - region[1]) / (size[0] - 1)])
        return Prediction(
            box, keypoints=(out["keypoints"] * step + region[:2]).astype(np.float32), scores=out["scores"]
        )
    if "labels" in out:
        return Prediction(box, labels=paste(out["labels"], region, shape, nearest=True))
    name = next(key for key in ("normals", "points", "albedo") if key in out)
    placed = paste(np.ascontiguousarray(out[name].transpose(1, 2, 0)), region, shape, nearest=False)
    if name == "normals":
        length = np.linalg.norm(placed, axis=-1, keepdims=True)
        placed = np.where(length > 0.1, placed / np.maximum(length, 1e-6), 0).astype(np.float32)
        return Prediction(box, normals=placed)
    if name == "points":
        return Prediction(box, points=placed, scale=float(out["scale"]))
    return Prediction(box, albedo=placed)
