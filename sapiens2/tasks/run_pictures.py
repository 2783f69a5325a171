"""What a fine-tuning run shows: samples as the network was given them, and answers on pictures that it was not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sapiens2.data.labelled import LabelError, LabelledDataset
from sapiens2.data.labelled.sheet import draw_labels
from sapiens2.data.synthetic.store import SceneStore, cache_folder
from sapiens2.engine import report
from sapiens2.tasks.answers import CAPTION, truth_and_answer
from sapiens2.tasks.build import TaskModel
from sapiens2.tasks.config import SYNTHETIC, DataSource, FinetuneConfig
from sapiens2.tasks.mixture import person_box
from sapiens2.tasks.predict import predict
from sapiens2.tasks.sample import Sample, from_scene
from sapiens2.tasks.source import TaskSource

Array = np.ndarray
SAMPLES = 12
ANSWERS = 4
WIDE_PX = 480
HELD_OUT = "test"  # the split of scenes that training never sees


def training_samples(config: FinetuneConfig, source: TaskSource) -> report.Section:
    """The first samples of training with their labels, framed and augmented as the network was given them."""
    drawn = [source.sample(position)[0] for position in range(min(SAMPLES, config.batch * config.engine.steps))]
    names = [given.path for given in config.sources or (DataSource(),)]
    what = "Synthetic people" if names == [SYNTHETIC] else f"Of {len(names)} sources" if names[1:] else "Labelled data"
    return report.pictures(
        "Training samples",
        [(draw_labels(config.task, sample), "") for sample in drawn],
        f"{what}, as the network was given them; colours are changed later, on the device.",
    )


def answers(config: FinetuneConfig, model: TaskModel) -> report.Section:
    """Picture, what is true, what the model says: of labelled pictures where there are any, else of held-out scenes."""
    samples, note = _labelled(config)
    if not samples:
        samples, note = _scenes(config), "Synthetic people whose poses, clothes and backgrounds were held out."
    boxes = [person_box(sample)[None] for sample in samples] if note.startswith("Labelled") else None
    found = predict(
        model,
        [sample.image for sample in samples],
        boxes=boxes if config.task == "pose" else None,
        input_size=config.image_size,
    )
    items = [
        (np.concatenate([sample.image, *truth_and_answer(config.task, sample, given[0])], axis=1), CAPTION)
        for sample, given in zip(samples, found)
    ]
    return report.pictures("Answers", items, note, max_side=WIDE_PX)


def _scenes(config: FinetuneConfig) -> list[Sample]:
    height, width = config.image_size
    folder = cache_folder() if config.cache_scenes else None
    store = SceneStore(ANSWERS, height, width, HELD_OUT, folder=folder)
    return [from_scene(store.scene(index)) for index in range(ANSWERS)]


def _labelled(config: FinetuneConfig) -> tuple[Sequence[Sample], str]:
    """Pictures of the first labelled folder: of its test or validation split, else some that were trained on."""
    for source in config.sources:
        if source.path == SYNTHETIC:
            continue
        for split, said in ((HELD_OUT, "not trained on"), ("val", "not trained on"), (source.split, "trained on")):
            try:
                dataset = LabelledDataset(source.path, config.task, split)
                shown = [dataset.sample(index) for index in range(min(ANSWERS, len(dataset)))]
            except LabelError:
                continue
            trained = said == "trained on" or split in {s.split for s in config.sources if s.path == source.path}
            return shown, f"Labelled pictures of the split {split}, {'trained on' if trained else said}."
    return [], ""
