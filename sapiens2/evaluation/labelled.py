"""Evaluation on labelled pictures: every answer is brought to the size at which its label was made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from sapiens2.data.labelled import LabelError, LabelledDataset
from sapiens2.data.labelled.layout import read_index
from sapiens2.evaluation.baselines import mean_map
from sapiens2.evaluation.measure import Answer
from sapiens2.evaluation.strata import Bins, row_bins
from sapiens2.tasks.affine import apply, inverse, region_matrix, resample
from sapiens2.tasks.build import TaskModel
from sapiens2.tasks.config import DataSource
from sapiens2.tasks.mixture import frame_region, framed, person_box
from sapiens2.tasks.predict import Prediction, predict
from sapiens2.tasks.sample import Sample

Array = np.ndarray
BASELINE_SAMPLES = 256


def load_labelled(source: DataSource, task: str, places: range | None = None) -> Iterator[Sample]:
    """Every sample of a split, or those at `places`, at its own size, one at a time.

    A sample that cannot be read is an error: LabelError names it.
    """
    dataset = LabelledDataset(source.path, task, source.split)
    return (dataset.sample(index) for index in (range(len(dataset)) if places is None else places))


def pictures_of(source: DataSource, task: str) -> list[str]:
    """The picture of each sample of a split: people that are labelled together share one."""
    return [row.image for row in LabelledDataset(source.path, task, source.split).rows]


def labelled_bins(source: DataSource, task: str) -> Bins:
    """How many people each of these samples' pictures shows, and how much of them is hidden."""
    return row_bins(LabelledDataset(source.path, task, source.split).rows, read_index(source.path), task)


def answer_native(
    model: TaskModel, samples: Sequence[Sample], size: tuple[int, int], batch: int, *, flip: bool = False
) -> list[Answer]:
    """What the model says of each sample, in the sample's own pixels; poses from the labelled boxes.

    flip: the mean over what the network sees and its mirror image. Albedo is not clamped.
    """
    boxes = [person_box(sample)[None] for sample in samples] if model.task == "pose" else None
    images = [sample.image for sample in samples]
    found = predict(model, images, boxes=boxes, input_size=size, batch=batch, flip=flip, clamp=False)
    return [_answer(model.task, person[0], sample, size[1]) for person, sample in zip(found, samples, strict=True)]


def _answer(task: str, found: Prediction, sample: Sample, seen: int) -> Answer:
    """What is said of a sample; seen: the width of the network's picture of it, pixels."""
    if task == "pose":
        assert found.keypoints is not None and found.scores is not None
        return {"keypoints": found.keypoints, "scores": found.scores}
    if task == "segmentation":
        assert found.labels is not None
        return {"labels": found.labels}
    if task == "pointmap":
        assert found.points is not None and found.scale is not None and found.region is not None
        return {"map": found.points * np.float32(found.scale * _widths(sample, found.region, seen))}
    values = found.normals if task == "normal" else found.albedo
    assert values is not None
    return {"map": values}


def constant_mean(
    task: str, source: DataSource, synthetic: Callable[[], Iterable[Sample]], size: tuple[int, int]
) -> Answer:
    """The mean of the labels of the folder's training split, framed as the network sees it.

    Where the folder has no training split, of synthetic people, which are rendered only then.
    """
    try:
        dataset = LabelledDataset(source.path, task, "train" if source.split != "train" else None)
    except LabelError:
        return mean_map(task, synthetic())
    count = min(len(dataset), BASELINE_SAMPLES)
    return mean_map(task, (framed(task, dataset.sample(index), size) for index in range(count)))


def placed(task: str, mean: Answer, sample: Sample, size: tuple[int, int]) -> Answer:
    """A constant answer, framed as the network sees a sample, in the sample's own pixels."""
    shape = (sample.image.shape[0], sample.image.shape[1])
    region = frame_region(task, sample, size)
    back = inverse(region_matrix(region, size))
    if task == "pose":
        return {"keypoints": apply(back, mean["keypoints"]).astype(np.float32), "scores": mean["scores"]}
    if task == "segmentation":
        return {"labels": resample(mean["labels"], back, shape, nearest=True)}
    shown = _widths(sample, region, size[1]) if task == "pointmap" else 1.0
    return {"map": resample(mean["map"], back, shape) * np.float32(shown)}


def _widths(sample: Sample, region: Array, seen: int) -> float:
    """The network's canonical points times this are the picture's.

    Canonical points are metres times width over focal length. The region's corners are the centres of the first and the
    last of the network's `seen` columns, so that its focal length is (seen - 1) / (x1 - x0) times the picture's.
    """
    return sample.image.shape[1] * (seen - 1) / (seen * float(region[2] - region[0]))
