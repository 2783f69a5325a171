"""Evaluates one task checkpoint on held-out synthetic people, beside answers that need no learning."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sapiens2.data.synthetic.store import SceneStore, cache_folder
from sapiens2.engine import report, storage
from sapiens2.evaluation.baselines import mean_map
from sapiens2.evaluation.bootstrap import Estimate
from sapiens2.evaluation.compared import PICTURE, Compared, Item, synthetic_items
from sapiens2.evaluation.config import EvaluateConfig
from sapiens2.evaluation.given_boxes import boxes_section, measure_boxes
from sapiens2.evaluation.labelled import (
    answer_native,
    constant_mean,
    labelled_bins,
    load_labelled,
    pictures_of,
    placed,
)
from sapiens2.evaluation.measure import MAIN, Answer, main_metric
from sapiens2.evaluation.metrics import best_scale
from sapiens2.evaluation.parts import measured as measured_parts
from sapiens2.evaluation.provenance import UNKNOWN, Provenance, provenance
from sapiens2.evaluation.strata import Bins, Stratum, by_stratum, scene_bins
from sapiens2.evaluation.tables import Row, measured, paper_table
from sapiens2.model.normalise import normalise
from sapiens2.model.weights import load_weights
from sapiens2.tasks.answers import CAPTION, truth_and_answer
from sapiens2.tasks.assemble import STRUCTURE, assemble
from sapiens2.tasks.build import TaskModel
from sapiens2.tasks.config import DataSource, FinetuneConfig
from sapiens2.tasks.predict import Prediction, forward
from sapiens2.tasks.sample import Sample, from_scene

BASELINE_SCENES = 256
_HIDDEN = {"AP50", "AP75"}


def evaluate(
    config: EvaluateConfig,
    *,
    checkpoint: str,
    out: str,
    name: str = "",
    asked: EvaluateConfig | None = None,
    state: str = "",
    said: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure the model in `checkpoint`, a folder or URI that a fine-tuning run has written.

    Writes `<out>/fragment.json`, the table in the paper's layout (`table.csv`, `table.tex`) and `<out>/metrics.json`
    (last), and returns the latter: every metric with its 95 % interval, the same for the mean of the training labels
    (`baseline`), the share of the baseline's error that the model removes (`gain`), and the main metric by number of
    people and by occlusion (`strata`). Of albedo also the picture itself as an answer (`picture`, `picture_gain`).
    name: of the checkpoint in the table; asked: the configuration with labels as they were named, where `config` has
    their folder. state: a folder or URI of this evaluation alone, for what a kill shall leave; said: is told how many
    samples are done, and of how many. Raises ValueError if the checkpoint is of another task.
    """
    began = time.perf_counter()
    trained, model = load_task(checkpoint)
    if trained.task != config.task:
        raise ValueError(f"{checkpoint} holds a {trained.task} model, not {config.task}: set task={trained.task}")
    size = config.image_size or trained.image_size
    compared, bins = _compare(config, model, trained, size, {"batch": config.batch, "state": state, "said": said})
    results = compared.estimates(rounds=config.rounds, seed=config.seed)
    strata = by_stratum(bins, **compared.headlines(), rounds=config.rounds, seed=config.seed)
    metrics = _metrics(config, results)
    metrics |= {"strata": [_stratum(each) for each in strata], "model": trained.backbone or trained.size}
    metrics |= {"n_test": compared.count, "image_size": list(size), "flip": config.flip}
    boxed = []
    if config.boxes and config.labelled is not None:
        chosen: dict[str, Any] = {"rounds": config.rounds, "seed": config.seed, "flip": config.flip}
        found = measure_boxes(model, config.labelled, compared.poses, config.boxes, size, config.batch, **chosen)
        metrics["boxes"] = {name: {k: _interval(e) for k, e in each.items()} for name, each in found.items()}
        boxed.append(boxes_section(found, flip=config.flip))
    about = provenance((asked or config).model_dump(mode="json"), metrics, checkpoint=name)
    table = paper_table(config.task, rows_of(metrics, about))
    fragment = _fragment(config, metrics, results, compared)
    fragment["sections"][2:2] = [*boxed, *strata_section(config.task, strata), table.section()]
    for suffix, text in (("csv", table.csv()), ("tex", table.latex())):
        storage.write_bytes(storage.join(out, f"table.{suffix}"), text.encode())
    metrics["seconds"] = round(time.perf_counter() - began, 3)
    for name, content in (("config", config.model_dump(mode="json")), ("fragment", fragment), ("metrics", metrics)):
        storage.write_bytes(storage.join(out, f"{name}.json"), json.dumps(content, indent=2, allow_nan=False).encode())
    return metrics


def _compare(
    config: EvaluateConfig, model: TaskModel, trained: FinetuneConfig, size: tuple[int, int], how: dict[str, Any]
) -> tuple[Compared, Bins]:
    """The whole test set, measured one batch after the other; `how`: what else `parts.measured` is told."""
    folder = cache_folder() if config.cache_scenes else None
    known = SceneStore(min(trained.scenes, BASELINE_SCENES), *size, "train", trained.scene_seed, folder=folder)
    on = None if config.labelled is None else pictures_of(config.labelled, config.task)
    compared = Compared(config.task, pictures=config.pictures, keep_poses=bool(config.boxes), on=on)
    if config.labelled is not None:
        native = _native_items(config, config.labelled, model, size, known)
        total = len(pictures_of(config.labelled, config.task))
        return measured_parts(compared, native, total, **how), labelled_bins(config.labelled, config.task)
    test = SceneStore(config.n_test, *size, "test", config.scene_seed, folder=folder)
    constant = mean_map(config.task, _samples(known))

    def said(chunk: list[Sample]) -> list[Answer]:
        return answer(model, chunk, config.batch, flip=config.flip)

    def items(places: range) -> Iterator[Item]:
        return synthetic_items(_samples(test, places), constant, said, config.batch)

    return measured_parts(compared, items, test.count, **how), scene_bins(
        test.scene(index) for index in range(test.count)
    )


def _native_items(
    config: EvaluateConfig, source: DataSource, model: TaskModel, size: tuple[int, int], known: SceneStore
) -> Callable[[range], Iterator[Item]]:
    """Labelled samples at their own size; `known` are for the constant answer where there is no training split."""
    constant = constant_mean(config.task, source, lambda: _samples(known), size)

    def said(chunk: list[Sample]) -> list[Answer]:
        return answer_native(model, chunk, size, config.batch, flip=config.flip)

    def items(places: range) -> Iterator[Item]:
        for item in synthetic_items(load_labelled(source, config.task, places), constant, said, config.batch):
            yield item._replace(constant=placed(config.task, constant, item.sample, size))

    return items


def _samples(store: SceneStore, places: range | None = None) -> Iterator[Sample]:
    return (from_scene(store.scene(index)) for index in (range(store.count) if places is None else places))


def load_task(checkpoint: str) -> tuple[FinetuneConfig, TaskModel]:
    """The configuration and the model of a fine-tuning run; FileNotFoundError if the folder holds none."""
    try:
        written = json.loads(storage.read_bytes(storage.join(checkpoint, "config.json")))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{checkpoint} has no config.json: give the folder of a fine-tuning run") from error
    config = FinetuneConfig.model_validate(written["config"])
    with torch.random.fork_rng(devices=[]):
        model = assemble(config, structure=written.get(STRUCTURE))
    load_weights(model, storage.join(checkpoint, "model.safetensors"))
    return config, model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def load_scenes(count: int, size: tuple[int, int], split: str, seed: int, folder: Any) -> list[Sample]:
    """The first scenes of a split, as samples."""
    return list(_samples(SceneStore(count, *size, split, seed, folder=folder)))


def answer(model: TaskModel, samples: Sequence[Sample], batch: int, *, flip: bool = False) -> list[Answer]:
    """What the model says of each sample, in the form that the statistics take: albedo is not clamped.

    flip: the mean over each sample and its mirror image.
    """
    device = next(model.parameters()).device
    answers: list[Answer] = []
    for start in range(0, len(samples), batch):
        images = np.stack([sample.image for sample in samples[start : start + batch]])
        crops = normalise(torch.from_numpy(images).to(device))
        out = forward(model, crops, images.shape[1:3], flip=flip, clamp=False)
        arrays = {name: tensor.cpu().numpy() for name, tensor in out.items()}
        answers += [as_answer(model.task, {name: a[k] for name, a in arrays.items()}) for k in range(len(images))]
    return answers


def as_answer(task: str, out: dict[str, np.ndarray]) -> Answer:
    """One image's finished output as an answer; points go back to canonical units, the space they are judged in."""
    if task in ("pose", "segmentation"):
        return out
    field = {"normal": "normals", "pointmap": "points", "albedo": "albedo"}[task]
    values = out[field].transpose(1, 2, 0)
    return {"map": values * out["scale"]} | out if task == "pointmap" else {"map": values}


def rows_of(metrics: Mapping[str, Any], about: Provenance = UNKNOWN) -> list[Row]:
    """The rows of an evaluation, from its metrics.json, in the table of its task: from labelled boxes, from given ones.

    The checkpoint's version, given boxes and a flip test stand behind the model's name.
    """
    height, width = metrics["image_size"]
    boxes = metrics.get("boxes", {}).get("given")
    rows = []
    for figures, found in ((metrics["metrics"], ""), *([(boxes, "given boxes")] if boxes else [])):
        said = filter(
            None, (f"{metrics.get('model', 'ours')}{about.mark}", found, "flip test" if metrics.get("flip") else "")
        )
        row = measured(metrics["task"], ", ".join(said), figures, input=f"{height} x {width}")
        rows.append(replace(row, about=about, boxes=found))
    return rows


def _stratum(each: Stratum) -> dict[str, Any]:
    judged = {"model": each.model, "baseline": each.baseline, PICTURE: each.picture}
    figures = {name: _interval(estimate) for name, estimate in judged.items() if estimate is not None}
    return {"axis": each.axis, "bin": each.name, "samples": each.samples, **figures}


def strata_section(task: str, strata: Sequence[Stratum]) -> list[dict[str, Any]]:
    """The main metric by number of people and by occlusion, as a section; none where there is one bin alone."""
    if not strata:
        return []
    rows = []
    for s in strata:
        judged = (s.model, s.baseline, s.picture)
        rows.append([f"{s.axis}: {s.name}", s.samples, *(each.text() for each in judged if each is not None)])
    return [
        {
            "type": "table",
            "title": f"{MAIN[task][0]} by what makes a picture hard",
            "columns": ["", "samples", *_judged(task)],
            "rows": rows,
            "note": "People of a picture, and the share of the labelled body keypoints that are hidden.",
        }
    ]


def _judged(task: str) -> list[str]:
    """The headings of what is measured."""
    return ["model", "mean of the training labels", *(["the picture itself"] if task == "albedo" else [])]


def _metrics(config: EvaluateConfig, results: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
    main = main_metric(config.task, {name: estimate.value for name, estimate in results["model"].items()})
    value, higher = results["model"][main].value, MAIN[config.task][1]
    metrics: dict[str, Any] = {
        "task": config.task,
        "n_test": config.n_test,
        "main": main,
        "higher_is_better": higher,
        "value": _number(value),
        "gain": _gain(value, results["baseline"][main].value, higher),
    }
    if PICTURE in results:
        metrics["picture_gain"] = _gain(value, results[PICTURE][main].value, higher)
    for kept, name in (("metrics", "model"), ("baseline", "baseline"), (PICTURE, PICTURE)):
        if name in results:
            metrics[kept] = {key: _interval(estimate) for key, estimate in results[name].items()}
    return metrics | {"seed": config.seed}


def _gain(ours: float, theirs: float, higher: bool) -> float | None:
    """The share of their error that ours removes."""
    ours, theirs = (1 - ours, 1 - theirs) if higher else (ours, theirs)
    return _number(1 - ours / theirs) if theirs > 0 else None


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _interval(estimate: Estimate) -> dict[str, float | None]:
    return {name: _number(getattr(estimate, name)) for name in ("value", "low", "high")}


def _fragment(
    config: EvaluateConfig,
    metrics: dict[str, Any],
    results: dict[str, dict[str, Estimate]],
    compared: Compared,
) -> dict[str, Any]:
    rows = [
        [name, *(each[name].text() for each in results.values())]
        for name in results["model"]
        if name not in _HIDDEN and math.isfinite(results["model"][name].value)
    ]
    what = "labelled samples" if config.labelled else "held-out scenes"
    said = f"{metrics['main']}{' with flip test' if config.flip else ''} is {results['model'][metrics['main']].text()}"
    against = ((metrics["gain"], "the mean"), (metrics.get("picture_gain"), "the picture itself, taken as albedo"))
    than = [f"{abs(g):.0%} {'less' if g >= 0 else 'more'} error than {base}" for g, base in against if g is not None]
    beside = f", {' and '.join(than)}" if than else ""
    sections: list[dict[str, Any]] = [
        {"type": "text", "title": "Outcome", "body": f"On {compared.count} {what} {said}{beside}."},
        {
            "type": "table",
            "title": "Metrics",
            "columns": ["metric", *_judged(config.task)],
            "rows": rows,
            "note": f"95 % intervals over {config.rounds} resamples of the images. {UNITS[config.task]}"
            + (FLIPPED if config.flip else ""),
        },
    ]
    if compared.shown:
        drawn = [(_strip(config.task, *item), f"{CAPTION} | mean") for item in compared.shown]
        unseen = "Poses, patterns and kinds of background of these scenes were never trained on."
        note = "Measured at the labels' own size." if config.labelled else unseen
        note += " Depth is drawn at the best scale of each picture." if config.task == "pointmap" else ""
        sections.append(report.pictures("Answers", drawn, note))
    return {"title": f"Evaluation: {config.task}", "sections": sections}


UNITS = {
    "pose": "AP, AR and PCK in [0, 1]; PCK at a share of the diagonal of the keypoints' box.",
    "segmentation": "mIoU over classes that occur, mAcc over those in the labels; mIoU_all and mAcc_all over all "
    "classes, absent ones as 0.",
    "normal": "Degrees, and shares of pixels within degrees.",
    "pointmap": "Canonical units (metres times image width over focal length); _scaled after the best scale per image; "
    "surface_ is the angle between the surfaces.",
    "albedo": "sRGB in [0, 1], answers not clamped; PSNR in dB.",
}
FLIPPED = " Flip test: every answer is the mean over what the network says of a picture and of its mirror image."


def _strip(task: str, sample: Sample, given: Answer, constant: Answer) -> np.ndarray:
    """Picture, truth, answer and the constant answer side by side."""
    truth, ours = truth_and_answer(task, sample, _prediction(task, sample, given))
    _, mean = truth_and_answer(task, sample, _prediction(task, sample, constant))
    return np.concatenate([sample.image, truth, ours, mean], axis=1)


def _prediction(task: str, sample: Sample, given: Answer) -> Prediction:
    box = np.zeros(4, np.float32)
    if task == "pose":
        return Prediction(box, keypoints=given["keypoints"], scores=given["scores"])
    if task == "segmentation":
        return Prediction(box, labels=given["labels"])
    if task == "normal":
        return Prediction(box, normals=given["map"])
    if task == "albedo":
        return Prediction(box, albedo=given["map"])
    # Drawn at the best scale: a person is thin against the distance, and an offset would drown the shape.
    assert sample.points is not None and sample.valid is not None
    scale = best_scale(given["map"][sample.valid], sample.points[sample.valid])
    return Prediction(box, points=given["map"] * scale)
