"""One fine-tuning run: a backbone in; a task model, its curve and a few of its answers out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sapiens2.data.synthetic.store import SceneStore, cache_folder
from sapiens2.engine import report, storage
from sapiens2.engine.config import recipe_of
from sapiens2.engine.control import PLAIN, Control
from sapiens2.engine.loop import TrainSummary, train
from sapiens2.engine.parallel import plain
from sapiens2.engine.world import World, cpu_threads, joined
from sapiens2.model.weights import load_weights
from sapiens2.tasks.answers import CAPTION, truth_and_answer
from sapiens2.tasks.build import TaskModel, build_task
from sapiens2.tasks.config import DataSource, FinetuneConfig, data_digest
from sapiens2.tasks.objective import TaskObjective
from sapiens2.tasks.predict import predict
from sapiens2.tasks.sample import from_scene
from sapiens2.tasks.source import TaskSource

SHOWN = 4  # scenes in the report
HELD_OUT = "test"  # the split of scenes that training never sees
BACKWARD = 2  # a backward pass costs two forward ones


def finetune(
    config: FinetuneConfig, *, backbone: str, out: str, state: str, control: Control = PLAIN
) -> dict[str, Any]:
    """Train a task model from the weights `backbone`, the path or URI of a model.safetensors.

    Writes `<out>/{model.safetensors, config.json, history.jsonl, fragment.json, metrics.json}`, metrics.json last, and
    resumes from `<state>` by itself. Returns the metrics, on every rank. Raises ValueError for weights of another
    architecture or a state of another recipe, Interrupted when asked to stop, Diverged when gradients stay non-finite.
    """
    with joined(config.engine) as world:
        return _finetune(config, world, backbone, out, state, control)


def _finetune(
    config: FinetuneConfig, world: World, backbone: str, out: str, state: str, control: Control
) -> dict[str, Any]:
    engine = config.engine
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(engine.seed)
        model = build_task(config.task, config.size)
    load_weights(model.backbone, backbone)
    objective = TaskObjective(config, model)
    source = TaskSource(config)
    summary = train(
        objective,
        source,
        engine,
        out=out,
        state=state,
        title=f"finetune {config.task}",
        images_per_step=config.batch,
        recipe=recipe_of(config) | {"backbone": storage.fingerprint(backbone)[1], "data": data_digest(config)},
        control=control,
    )
    metrics = report.run_metrics(summary, seed=engine.seed, flops_per_image=_flops_per_image(config, model))
    metrics |= {"task": config.task, "scenes": config.scenes, "epochs": summary.images / config.scenes}
    metrics |= {"unreadable": len(source.mixture.unreadable), "sources": _source_counts(source)}
    trained = plain(objective, world, lambda: TaskObjective(config, build_task(config.task, config.size)))
    with cpu_threads(engine):
        if trained is not None:
            report.publish(out, _config_file(config), _fragment(config, summary, metrics, trained.model), metrics)
    return metrics


def _source_counts(source: TaskSource) -> list[dict[str, Any]]:
    """What training drew from: samples and share of each source."""
    chosen = source.config.sources or (DataSource(),)
    quota = source.mixture.quota / source.mixture.quota.sum()
    decks = source.mixture.decks
    return [
        {"path": given.path, "samples": deck.count, "share": round(float(share), 3)}
        for given, deck, share in zip(chosen, decks, quota, strict=True)
    ]


def _flops_per_image(config: FinetuneConfig, model: TaskModel) -> float:
    """FLOPs of one training sample, counted on a meta copy of the model."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        copy = build_task(config.task, config.size)
        with FlopCounterMode(display=False) as counter:
            copy(torch.empty(1, 3, *config.image_size))
    frozen = model.backbone.flops(*config.image_size) if config.freeze_backbone else 0
    forward = counter.get_total_flops()
    return float(forward + BACKWARD * max(forward - frozen, 0))


def _config_file(config: FinetuneConfig) -> dict[str, Any]:
    """What is needed to build the model again, and the whole configuration."""
    return {
        "kind": "task",
        "task": config.task,
        "size": config.size,
        "image_size": list(config.image_size),
        "config": config.model_dump(mode="json"),
    }


def _fragment(
    config: FinetuneConfig, summary: TrainSummary, metrics: dict[str, Any], model: TaskModel
) -> dict[str, Any]:
    rows = summary.history
    terms = sorted(metrics["final"].keys() - {"grad_norm", "grad_norm_max", "loss"})
    sections = [
        report.table(f"Fine-tuning for {config.task}", _facts(config, metrics)),
        report.curves("Losses", rows, ("loss", *terms), "loss"),
        report.curves("Learning rate", rows, ("lr",), "rate of the head"),
        report.curves("Gradient norm", rows, ("grad_norm", "grad_norm_max"), "norm before the clip"),
        _answers(config, model),
    ]
    return {"title": f"Fine-tuning for {config.task}", "sections": sections}


def _facts(config: FinetuneConfig, metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        ("loss at the start", metrics["loss_first"]),
        ("loss at the end", metrics["loss_final"]),
        ("steps", metrics["steps"]),
        ("images seen", f"{metrics['images']} ({metrics['epochs']:.1f} times {metrics['scenes']} scenes)"),
        ("parameters trained", metrics["trained_parameters"]),
        ("arithmetic", f"{metrics['flops']:.3g} FLOP"),
        ("training time", f"{metrics['seconds']:.1f} s"),
        ("steps skipped for a non-finite gradient", metrics["skipped_steps"]),
        ("input", f"{config.image_size[0]} x {config.image_size[1]} pixels"),
    ]


def _answers(config: FinetuneConfig, model: TaskModel) -> report.Section:
    """Held-out scenes: picture, what is true, what the model says."""
    height, width = config.image_size
    folder = cache_folder() if config.cache_scenes else None
    store = SceneStore(SHOWN, height, width, HELD_OUT, folder=folder)
    samples = [from_scene(store.scene(index)) for index in range(SHOWN)]
    answers = predict(model, [sample.image for sample in samples], input_size=config.image_size)
    items = [
        (np.concatenate([sample.image, *truth_and_answer(config.task, sample, found[0])], axis=1), CAPTION)
        for sample, found in zip(samples, answers)
    ]
    return report.pictures("Answers", items, "Synthetic people whose poses, clothes and backgrounds were held out.")
