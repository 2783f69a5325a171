"""One evaluation: a task checkpoint in; metrics with intervals, the mean-map baseline beside them, and pictures out."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch

from sapiens2.data.synthetic.store import SceneStore, cache_folder
from sapiens2.engine import report, storage
from sapiens2.evaluation.baselines import mean_map
from sapiens2.evaluation.bootstrap import Estimate, bootstrap
from sapiens2.evaluation.config import EvaluateConfig
from sapiens2.evaluation.measure import MAIN, STATISTICS, Answer
from sapiens2.model.weights import load_weights
from sapiens2.tasks.build import TaskModel, build_task
from sapiens2.tasks.predict import Prediction, predict
from sapiens2.tasks.run import CAPTION, truth_and_answer
from sapiens2.tasks.sample import Sample, from_scene

HELD_OUT, TRAINING = "test", "train"


def evaluate(config: EvaluateConfig, *, checkpoint: str, out: str) -> dict[str, Any]:
    """Evaluate the fine-tuned model in the folder or URI `checkpoint` on held-out synthetic people.

    Writes `<out>/{fragment.json, config.json, metrics.json}`; `measures` of the metrics has value, low and high (95 %
    bootstrap over images) of every metric, `baseline` the same for the mean of the training labels. Raises ValueError
    for a checkpoint of another task.
    """
    about = json.loads(storage.read_bytes(storage.join(checkpoint, "config.json")))
    if about.get("task") != config.task:
        raise ValueError(
            f"{checkpoint} was trained for {about.get('task')}, not {config.task}: give a checkpoint of that task"
        )
    model = build_task(config.task, about["size"])
    load_weights(model, storage.join(checkpoint, "model.safetensors"))
    size = config.image_size or tuple(about["image_size"])
    held_out = _samples(config, HELD_OUT, size)
    found = _predictions(model, held_out, config, size)
    estimates = _estimate(config, [_answer(config.task, p) for p in found], held_out)
    constant = mean_map(config.task, _samples(config, TRAINING, size))
    baseline = _estimate(config, [constant] * len(held_out), held_out)
    metrics = _metrics(config, estimates, baseline)
    report.publish(
        out, config.model_dump(mode="json"), _fragment(config, held_out, found, estimates, baseline), metrics
    )
    return metrics


def _samples(config: EvaluateConfig, split: str, size: tuple[int, int]) -> list[Sample]:
    folder = cache_folder() if config.cache_scenes else None
    store = SceneStore(config.n_test, *size, split, config.scene_seed, folder=folder)
    return [from_scene(store.scene(index)) for index in range(config.n_test)]


def _predictions(
    model: TaskModel, samples: list[Sample], config: EvaluateConfig, size: tuple[int, int]
) -> list[Prediction]:
    with torch.inference_mode():
        answers = predict(model, [s.image for s in samples], input_size=size, batch=config.batch)
    return [answer[0] for answer in answers]


def _answer(task: str, found: Prediction) -> Answer:
    if task == "pose":
        assert found.keypoints is not None and found.scores is not None
        return {"keypoints": found.keypoints, "scores": found.scores}
    if task == "segmentation":
        assert found.labels is not None
        return {"labels": found.labels}
    if task == "pointmap":
        assert found.points is not None and found.scale is not None
        return {"map": found.points * found.scale}  # canonical units, as the labels are compared
    map_ = found.normals if task == "normal" else found.albedo
    assert map_ is not None
    return {"map": map_}


def _estimate(config: EvaluateConfig, answers: list[Answer], samples: list[Sample]) -> dict[str, Estimate]:
    statistic = STATISTICS[config.task](answers, samples)
    return bootstrap(statistic, len(samples), rounds=config.rounds, seed=config.seed)


def _metrics(
    config: EvaluateConfig, estimates: dict[str, Estimate], baseline: dict[str, Estimate]
) -> dict[str, Any]:
    name, higher = MAIN[config.task]
    main, plain = estimates[name], baseline[name]
    return {
        "task": config.task,
        "n_samples": config.n_test,
        "main": name,
        "higher_is_better": higher,
        "measures": {key: _figure(estimate) for key, estimate in estimates.items() if math.isfinite(estimate.value)},
        "baseline": {key: _figure(estimate) for key, estimate in baseline.items() if math.isfinite(estimate.value)},
        "headline": f"{name} {main.value:.3f}, mean map {plain.value:.3f}",
        "seed": config.seed,
    }


def _figure(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _fragment(
    config: EvaluateConfig,
    samples: list[Sample],
    found: list[Prediction],
    estimates: dict[str, Estimate],
    baseline: dict[str, Estimate],
) -> dict[str, Any]:
    rows = [[name, estimates[name].text(), baseline[name].text()] for name in estimates]
    table = {
        "type": "table",
        "title": "Metrics, with 95 % intervals over images",
        "columns": ["metric", "model", "mean of the training labels"],
        "rows": rows,
        "note": f"{len(samples)} synthetic scenes whose poses, clothes and backgrounds were held out.",
    }
    items = []
    for sample, answer in list(zip(samples, found, strict=True))[: config.pictures]:
        pictures = [sample.image, *truth_and_answer(config.task, sample, answer)]
        items.append((np.concatenate(pictures, axis=1), CAPTION))
    return {"title": f"Evaluation of {config.task}", "sections": [table, report.pictures("Held-out people", items)]}
