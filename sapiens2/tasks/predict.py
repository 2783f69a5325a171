"""From pictures to answers: crop each person, run the model in batches, bring the output back to the picture.

Person crops follow the test protocol of the release (box padded by 1.25, aspect of the model's input, UDP corners). A
whole picture is fitted in with margins, for segmentation stretched. Answers are in the picture's own pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sapiens2.model.normalise import normalise
from sapiens2.tasks.build import TaskModel
from sapiens2.tasks.flip_test import flip_tested
from sapiens2.tasks.head_specs import OUTPUT
from sapiens2.tasks.heatmaps import decode, to_image
from sapiens2.tasks.pointmap_scale import heard, to_metres
from sapiens2.tasks.regions import (
    MAX_SIDE,
    Window,
    crop,
    off_picture,
    person_region,
    place,
    said_too_far,
    too_far,
    whole_region,
    window_of,
)

Array = np.ndarray
Detector = Callable[[Array], Array]
"""uint8 [H, W, 3] -> person boxes [N, 4] as x0, y0, x1, y1 pixels, or [N, 5] with the detector's score last."""
DEFAULT_INPUT = {"tiny": (128, 96)}
RELEASED_INPUT = (1024, 768)


@dataclass(frozen=True)
class Prediction:
    """One person's answer in the pixels of its picture; fields that the task does not give are None.

    Maps [h, w, ...] cover the window: the part of the picture that was looked at, the whole of it without boxes.
    `sapiens2.tasks.compose.compose` joins the maps of several persons on the picture.
    """

    box: Array  # float32 [4] x0, y0, x1, y1 of the person; of the picture without boxes
    keypoints: Array | None = None  # float32 [308, 2] x, y
    scores: Array | None = None  # float32 [308]
    labels: Array | None = None  # uint8 [h, w]
    normals: Array | None = None  # float32 [h, w, 3] unit
    points: Array | None = None  # float32 [h, w, 3] metres, camera in the middle of the picture
    scale: float | None = None  # canonical points per metre
    albedo: Array | None = None  # float32 [h, w, 3] sRGB, in [0, 1] if it was clamped
    valid: Array | None = None  # bool [h, w] the person's pixels, where a model of the parts was given
    score: float | None = None  # the detector's
    region: Array | None = None  # float32 [4] what the network saw
    window: Window = (0, 0, 0, 0)
    focal_px: float | None = None  # of the camera that the points imply, in picture pixels


@torch.inference_mode()
def forward(
    model: TaskModel, crops: Tensor, size: tuple[int, int], *, flip: bool = False, clamp: bool = True
) -> dict[str, Tensor]:
    """Finished outputs of normalised crops [B, 3, h, w] on a grid of `size` (height, width) over the same region.

    flip: of the mean over each crop and its mirror image. clamp: albedo to [0, 1], as it is drawn; not as it is
    measured.

    pose: keypoints [B, 308, 2] in pixels of that grid (corners aligned) and scores; segmentation: labels; the others:
    maps [B, 3, H, W], normals unit, points metric.
    """
    model.eval()
    out = flip_tested(model, crops) if flip else model(crops)
    if model.task == "pose":
        return _pose(out["heatmaps"], size)

    def resized(x: Tensor) -> Tensor:
        return F.interpolate(x.float(), size, mode="bilinear", align_corners=False)

    if model.task == "segmentation":
        return {"labels": resized(out["logits"]).argmax(1).to(torch.uint8)}
    if model.task == "normal":
        return {"normals": F.normalize(resized(out["normals"]), dim=1)}
    if model.task == "albedo":
        albedo = resized(out["albedo"])
        return {"albedo": albedo.clamp(0, 1) if clamp else albedo}
    said = out["scale"].float()
    return {"points": to_metres(resized(out["points"]), said, model.scale), "scale": heard(said, model.scale)}


def _pose(heatmaps: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    xy, scores = decode(heatmaps)
    return {"keypoints": to_image(xy, size, (heatmaps.shape[-2], heatmaps.shape[-1])), "scores": scores}


def input_size(model: TaskModel) -> tuple[int, int]:
    """Height and width that a model's crops have: those it was trained at, else 1024 x 768, for tiny 128 x 96."""
    return model.image_size or DEFAULT_INPUT.get(model.size, RELEASED_INPUT)


def predict(
    task_model: TaskModel,
    images: Sequence[Array],
    *,
    boxes: Sequence[Array | None] | None = None,
    detector: Detector | None = None,
    people: TaskModel | None = None,
    input_size: tuple[int, int] | None = None,
    batch: int = 8,
    flip: bool = False,
    clamp: bool = True,
) -> list[list[Prediction]]:
    """One list of predictions per image, one prediction per person; persons of all images share the batches.

    images: uint8 [H, W, 3] RGB, any sizes. boxes: per image [N, 4] as x0, y0, x1, y1 pixels, or [N, 5] with scores;
    None for an image takes it whole. Without boxes `detector` finds them, and an image where it finds nobody gets an
    empty list; without either every image is taken whole. people: a segmentation model whose parts say which pixels
    are a person's (`valid`). input_size: (height, width) of the network, default that of its training. batch: crops per
    forward pass. flip: the mean of what the network says of each crop and of its mirror image, at twice the
    cost. clamp: albedo to [0, 1]. Raises ValueError for images that are not uint8 RGB, and for boxes of another number,
    without an area, off the picture or far beyond it.
    """
    if boxes is not None and len(boxes) != len(images):
        raise ValueError(f"{len(boxes)} lists of boxes for {len(images)} images: give one list per image")
    for index, image in enumerate(images):
        check_image(image, f"image {index}")
    found = (_boxes(image, None if boxes is None else boxes[i], detector) for i, image in enumerate(images))
    pictures = zip(images, found)
    options: dict[str, Any] = {"input_size": input_size, "batch": batch, "flip": flip, "clamp": clamp}
    return list(predict_each(task_model, pictures, people=people, **options))


def check_image(image: Array, name: str) -> None:
    """Raises ValueError unless an image is uint8 [H, W, 3] of sides that can be warped."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"{name} is {image.dtype} {list(image.shape)}: give uint8 [height, width, 3] in RGB")
    if max(image.shape) > MAX_SIDE:
        raise ValueError(f"{name} has a side of {max(image.shape)} pixels: shrink it to {MAX_SIDE} or less")


def _boxes(image: Array, boxes: Array | None, detector: Detector | None) -> Array | None:
    return detector(image) if boxes is None and detector is not None else boxes


def checked_boxes(boxes: Array, shape: tuple[int, int]) -> Array:
    """Boxes on a picture of shape (height, width) as float64 [N, 4 or 5].

    Raises ValueError for another shape, numbers that are not finite, and boxes without an area, off the picture or far
    beyond it (`sapiens2.tasks.regions.REACH`).
    """
    boxes = np.asarray(boxes, np.float64)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
        raise ValueError(f"boxes have the shape {list(boxes.shape)}: give [N, 4] as x0, y0, x1, y1, or [N, 5]")
    wrong = ~np.isfinite(boxes).all(1) | (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
    if wrong.any():
        raise ValueError(f"box {boxes[wrong][0].tolist()} has no area: give x0 < x1 and y0 < y1 in pixels")
    off = off_picture(boxes, shape)
    if off.any():
        raise ValueError(f"box {boxes[off][0].tolist()} lies outside the picture of {shape[1]} x {shape[0]} pixels")
    far = too_far(boxes, shape)
    if far.any():
        raise ValueError(f"box {boxes[far][0].tolist()} {said_too_far(shape)}: give x0, y0, x1, y1 in its own pixels")
    return boxes


@dataclass
class _Picture:
    """A picture whose persons are not all answered yet."""

    image: Array
    people: list[Prediction]
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = len(self.people)


def predict_each(
    task_model: TaskModel,
    pictures: Iterable[tuple[Array, Array | None]],
    *,
    people: TaskModel | None = None,
    input_size: tuple[int, int] | None = None,
    batch: int = 8,
    flip: bool = False,
    clamp: bool = True,
) -> Iterator[list[Prediction]]:
    """`predict` for a stream of (image, boxes or None), in order; holds no more pictures than a batch needs."""
    network = _Network(task_model, people, input_size, flip, clamp)
    waiting: deque[_Picture] = deque()
    jobs: list[tuple[_Picture, int]] = []
    for image, boxes in pictures:
        picture = _Picture(image, network.persons(image, boxes))
        waiting.append(picture)
        jobs += [(picture, index) for index in range(picture.left)]
        while len(jobs) >= batch:
            network.answer(jobs[:batch])
            del jobs[:batch]
        while waiting and not waiting[0].left:
            yield waiting.popleft().people
    for start in range(0, len(jobs), batch):
        network.answer(jobs[start : start + batch])
    yield from (picture.people for picture in waiting)


class _Network:
    """A task model, perhaps one of the parts beside it, and the size of their crops."""

    def __init__(
        self, model: TaskModel, people: TaskModel | None, size: tuple[int, int] | None, flip: bool, clamp: bool
    ) -> None:
        if people is not None and people.task != "segmentation":
            raise ValueError(f"people is a {people.task} model: give a segmentation model")
        self.flip, self.clamp = flip, clamp
        self.model, self.people = model.eval(), None if people is None else people.eval()
        self.size = size or input_size(model)
        self.device = next(model.parameters()).device

    def persons(self, image: Array, boxes: Array | None) -> list[Prediction]:
        """The persons of a picture, not answered yet."""
        shape, (height, width) = image.shape[:2], self.size
        if boxes is None:
            whole = np.array([0, 0, shape[1] - 1, shape[0] - 1], np.float32)
            regions = [whole_region(shape, self.size, stretch=self.model.task == "segmentation")]
            given = [Prediction(whole)]
        else:
            boxes = checked_boxes(boxes, shape)
            regions = [person_region(box, width / height) for box in boxes]
            scores = boxes[:, 4].tolist() if boxes.shape[1] == 5 else [None] * len(boxes)
            given = [Prediction(b[:4].astype(np.float32), score=s) for b, s in zip(boxes, scores)]
        return [replace(g, region=r, window=window_of(r, shape)) for g, r in zip(given, regions)]

    @torch.inference_mode()
    def answer(self, jobs: list[tuple[_Picture, int]]) -> None:
        """One forward pass; fills in the predictions of (picture, person)."""
        out = self._run(self.model, jobs, self.size)
        valid = None if self.people is None else self._run(self.people, jobs, input_size(self.people))["logits"]
        for row, (picture, index) in enumerate(jobs):
            one = {name: array[row] for name, array in out.items()}
            task, shape = self.model.task, picture.image.shape[:2]
            answered = _placed(picture.people[index], one, task, self.size, shape, clamp=self.clamp)
            if valid is not None and self.people is not None:
                answered = _with_people(answered, valid[row], input_size(self.people))
            picture.people[index] = answered
            picture.left -= 1

    def _run(self, model: TaskModel, jobs: list[tuple[_Picture, int]], size: tuple[int, int]) -> dict[str, Array]:
        crops = np.stack([crop(picture.image, _region(picture.people[index]), size) for picture, index in jobs])
        images = normalise(torch.from_numpy(crops).to(self.device))
        out = flip_tested(model, images) if self.flip and model is self.model else model(images)
        out = _pose(out["heatmaps"], size) if model.task == "pose" else out
        if "scale" in out:
            out["scale"] = heard(out["scale"].float(), model.scale)
        return {name: tensor.float().cpu().numpy() for name, tensor in out.items()}


def _region(person: Prediction) -> Array:
    assert person.region is not None
    return person.region


def _placed(
    person: Prediction,
    out: dict[str, Array],
    task: str,
    size: tuple[int, int],
    shape: tuple[int, int],
    *,
    clamp: bool = True,
) -> Prediction:
    """The output of one crop, its scale already that of canonical points, in the picture's pixels."""
    region = _region(person)
    if task == "pose":
        step = np.array([(region[2] - region[0]) / (size[1] - 1), (region[3] - region[1]) / (size[0] - 1)])
        return replace(
            person, keypoints=(out["keypoints"] * step + region[:2]).astype(np.float32), scores=out["scores"]
        )
    if task == "segmentation":
        return replace(person, labels=_labels(out["logits"], region, person.window, size))
    values = place(out[OUTPUT[task]].transpose(1, 2, 0), region, person.window, size)
    if task == "normal":
        length = np.linalg.norm(values, axis=-1, keepdims=True)
        return replace(person, normals=values / np.maximum(length, 1e-12))
    if task == "albedo":
        return replace(person, albedo=values.clip(0, 1) if clamp else values)
    scale = float(out["scale"])
    focal = size[1] / scale * (region[2] - region[0]) / (size[1] - 1)
    return replace(person, points=_centred(values / scale, region, shape, focal), scale=scale, focal_px=focal)


def _labels(logits: Array, region: Array, window: Window, size: tuple[int, int]) -> Array:
    """The class of the largest logit [C, h, w] at every pixel of the window, each logit interpolated: smooth edges."""
    best = place(logits[0], region, window, size)
    labels = np.zeros(best.shape, np.uint8)
    for index in range(1, len(logits)):
        value = place(logits[index], region, window, size)
        larger = value > best
        labels[larger] = index
        np.maximum(best, value, out=best)
    return labels


def _centred(points: Array, region: Array, shape: tuple[int, int], focal: float) -> Array:
    """Points of a camera that looks at the middle of the crop, for the camera that looks at the middle of the picture.

    A pinhole's principal point moves by the distance of the middles; depth stays, x and y grow by distance * z / f.
    """
    middle = np.array([(region[0] + region[2]) - (shape[1] - 1), (region[1] + region[3]) - (shape[0] - 1)]) / 2
    shift = np.array([*(middle / focal), 0], np.float32)
    moved: Array = points + points[..., 2:] * shift
    return moved


def _with_people(person: Prediction, logits: Array, size: tuple[int, int]) -> Prediction:
    """The prediction with the pixels where any part [29, h, w] is likelier than the background."""
    margin = place(logits[1:].max(0) - logits[0], _region(person), person.window, size)
    return replace(person, valid=margin > 0)
