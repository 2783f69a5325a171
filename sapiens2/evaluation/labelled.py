"""Evaluation on labelled pictures: every answer is brought to the size at which its label was made."""

from __future__ import annotations

from collections.abc import Sequence

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


def load_labelled(source: DataSource, task: str) -> list[Sample]:
    """Every sample of a split at its own size. A sample that cannot be read is an error: LabelError names it."""
    dataset = LabelledDataset(source.path, task, source.split)
    return [dataset.sample(index) for index in range(len(dataset))]


def labelled_bins(source: DataSource, task: str) -> Bins:
    """How many people each of these samples' pictures shows, and how much of them is hidden."""
    return row_bins(LabelledDataset(source.path, task, source.split).rows, read_index(source.path), task)


def answer_native(model: TaskModel, samples: Sequence[Sample], size: tuple[int, int], batch: int) -> list[Answer]:
    """What the model says of each sample, in the sample's own pixels; poses from the labelled boxes."""
    boxes = [person_box(sample)[None] for sample in samples] if model.task == "pose" else None
    found = predict(model, [sample.image for sample in samples], boxes=boxes, input_size=size, batch=batch)
    return [_answer(model.task, person[0], sample) for person, sample in zip(found, samples, strict=True)]


def _answer(task: str, found: Prediction, sample: Sample) -> Answer:
    if task == "pose":
        assert found.keypoints is not None and found.scores is not None
        return {"keypoints": found.keypoints, "scores": found.scores}
    if task == "segmentation":
        assert found.labels is not None
        return {"labels": found.labels}
    if task == "pointmap":
        assert found.points is not None and found.scale is not None and found.region is not None
        # Canonical units count widths: the network's is that of its region, margins and all.
        shown = (sample.image.shape[1] - 1) / float(found.region[2] - found.region[0])
        return {"map": found.points * np.float32(found.scale * shown)}
    values = found.normals if task == "normal" else found.albedo
    assert values is not None
    return {"map": values}


def constant_native(
    task: str, source: DataSource, synthetic: Sequence[Sample], samples: Sequence[Sample], size: tuple[int, int]
) -> list[Answer]:
    """The mean of the labels of the folder's training split, framed as the network sees it, on every sample.

    Where the folder has no training split, of synthetic people.
    """
    try:
        dataset = LabelledDataset(source.path, task, "train" if source.split != "train" else None)
        count = min(len(dataset), BASELINE_SAMPLES)
        learned: Sequence[Sample] = [framed(task, dataset.sample(index), size) for index in range(count)]
    except LabelError:
        learned = synthetic
    mean = mean_map(task, learned)
    return [_placed(task, mean, sample, size) for sample in samples]


def _placed(task: str, mean: Answer, sample: Sample, size: tuple[int, int]) -> Answer:
    shape = (sample.image.shape[0], sample.image.shape[1])
    region = frame_region(task, sample, size)
    back = inverse(region_matrix(region, size))
    if task == "pose":
        return {"keypoints": apply(back, mean["keypoints"]).astype(np.float32), "scores": mean["scores"]}
    if task == "segmentation":
        return {"labels": resample(mean["labels"], back, shape, nearest=True)}
    shown = (shape[1] - 1) / float(region[2] - region[0]) if task == "pointmap" else 1.0
    return {"map": resample(mean["map"], back, shape) * np.float32(shown)}
