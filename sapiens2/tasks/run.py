"""One fine-tuning run: a backbone in; a task model, its curve and a few of its answers out."""

from __future__ import annotations

from typing import Any

import torch

from sapiens2.engine import report, storage
from sapiens2.engine.config import recipe_of
from sapiens2.engine.control import PLAIN, Control
from sapiens2.engine.loop import TrainSummary, train
from sapiens2.engine.world import World, cpu_threads, joined
from sapiens2.model.backbone import Backbone
from sapiens2.model.foreign import ForeignBackbone
from sapiens2.model.weights import load_weights
from sapiens2.tasks.assemble import STRUCTURE, assemble, assemble_on_meta
from sapiens2.tasks.build import TaskModel
from sapiens2.tasks.config import SYNTHETIC, DataSource, FinetuneConfig, data_digest
from sapiens2.tasks.objective import TaskObjective
from sapiens2.tasks.run_pictures import answers, training_samples
from sapiens2.tasks.source import TaskSource

BACKWARD = 2  # a backward pass costs two forward ones


def finetune(
    config: FinetuneConfig, *, out: str, state: str, backbone: str | None = None, control: Control = PLAIN
) -> dict[str, Any]:
    """Train a task model from the weights `backbone`, the path or URI of a model.safetensors.

    With `config.backbone` somebody else's backbone is trained and `backbone` is not given. Writes
    `<out>/{model.safetensors, config.json, history.jsonl, fragment.json, metrics.json}`, metrics.json last, and resumes
    from `<state>` by itself. Returns the metrics, on every rank. Raises ValueError for weights of another architecture
    or a state of another recipe, Interrupted when asked to stop, Diverged when gradients stay non-finite.
    """
    with joined(config.engine) as world:
        return _finetune(config, world, backbone, out, state, control)


def _finetune(
    config: FinetuneConfig, world: World, backbone: str | None, out: str, state: str, control: Control
) -> dict[str, Any]:
    engine = config.engine
    model, origin = _start(config, backbone)
    objective = TaskObjective(config, model)
    source = TaskSource(config)
    flops = _flops_per_image(config)
    summary = train(
        objective,
        source,
        engine,
        out=out,
        state=state,
        title=f"finetune {config.task}",
        images_per_step=config.batch,
        flops_per_image=flops,
        recipe=recipe_of(config) | {"weights": origin["weights_sha256"], "data": data_digest(config)},
        control=control,
    )
    metrics = report.run_metrics(summary, seed=engine.seed, flops_per_image=flops)
    metrics |= {"task": config.task, "unreadable": len(source.skipped), "backbone": origin}
    metrics |= _seen(source, summary.images)
    if world.leads:
        with cpu_threads(engine):
            fragment = _fragment(config, summary, metrics, published(config, out, model), source)
        report.publish(out, _config_file(config, model), fragment, metrics)
    return metrics


def _start(config: FinetuneConfig, backbone: str | None) -> tuple[TaskModel, dict[str, Any]]:
    """The model that training starts from, and what its backbone is."""
    if bool(backbone) == bool(config.backbone):
        given = "both" if backbone else "neither"
        raise ValueError(
            f"{given} of a pretrained backbone and backbone=timm:... or hf:... were given: give exactly one of them"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.engine.seed)
        model = assemble(config, weights=True)
    if backbone:
        load_weights(model.backbone, backbone)
        return model, {"library": "sapiens2", "name": config.size, "weights_sha256": storage.fingerprint(backbone)[1]}
    assert isinstance(model.backbone, ForeignBackbone)
    return model, model.backbone.described()


def published(config: FinetuneConfig, folder: str, trained: TaskModel | None = None) -> TaskModel:
    """The model that a run has written, on the CPU: averages and merged corrections included.

    trained: the one in training, whose foreign backbone need not be looked for again.
    """
    with torch.random.fork_rng(devices=[]):
        model = assemble(config, structure=None if trained is None else _structure(trained))
    load_weights(model, storage.join(folder, "model.safetensors"))
    return model.eval()


def _seen(source: TaskSource, images: int) -> dict[str, Any]:
    """What training drew from: samples and share of each source, images seen of it, and how often that is all of it.

    The run as a whole has `epochs` only where it has one source: several are gone through at different rates.
    """
    chosen = source.config.sources or (DataSource(),)
    mixture = source.mixture
    shares = mixture.quota / mixture.quota.sum()
    found = [
        {"path": given.path, "samples": deck.count, "share": round(float(share), 3), "images": taken}
        | {"epochs": taken / deck.count}
        for given, deck, share, taken in zip(chosen, mixture.decks, shares, mixture.taken(images), strict=True)
    ]
    out: dict[str, Any] = {"sources": found}
    if source.config.renders:
        out["scenes"] = source.config.scenes
    return out if found[1:] else out | {"epochs": found[0]["epochs"]}


def _said_seen(metrics: dict[str, Any]) -> str:
    """Images seen, of what, and how often: `24 (16: 8.0 times 2 labelled samples; 8: 2.0 times 4 scenes)`."""
    sources = metrics["sources"]
    said = [
        (f"{each['images']}: " if sources[1:] else "")
        + f"{each['epochs']:.1f} times {each['samples']} "
        + ("scenes" if each["path"] == SYNTHETIC else "labelled samples")
        for each in sources
    ]
    return f"{metrics['images']} ({'; '.join(said)})"


def _flops_per_image(config: FinetuneConfig) -> float:
    """FLOPs of one training sample, counted on the structure alone.

    A backward pass is one forward for the gradients of activations and one for those of weights: a frozen backbone has
    neither, one with LoRA (about) the first.
    """
    from torch.utils.flop_counter import FlopCounterMode

    model = assemble_on_meta(config)
    images = torch.empty(1, 3, *config.image_size, device="meta")
    if isinstance(model.backbone, Backbone):  # it knows without a pass, which takes a second under the counter
        body = model.backbone.flops(*config.image_size)
        features = images.new_empty(1, model.backbone.architecture.dim, *model.backbone.grid(*config.image_size))
    else:
        with FlopCounterMode(display=False) as counter:
            features = model.backbone(images).patches
        body = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        model.decode(features, images)
    head = counter.get_total_flops()
    backward = 0 if config.freeze_backbone else (1 if config.lora_rank else BACKWARD) / config.backbone_every
    return float((1 + backward) * body + (1 + BACKWARD) * head)


def _structure(model: TaskModel) -> dict[str, Any] | None:
    """Of a foreign backbone, so that its folder or hub is not needed to make it again."""
    return model.backbone.structure() if isinstance(model.backbone, ForeignBackbone) else None


def _config_file(config: FinetuneConfig, model: TaskModel) -> dict[str, Any]:
    """What is needed to build the model again, and the whole configuration."""
    structure = _structure(model)
    return {
        "kind": "task",
        "task": config.task,
        "size": config.size,
        "image_size": list(config.image_size),
        "config": config.model_dump(mode="json"),
    } | ({STRUCTURE: structure} if structure else {})


def _fragment(
    config: FinetuneConfig, summary: TrainSummary, metrics: dict[str, Any], model: TaskModel, source: TaskSource
) -> dict[str, Any]:
    rows = summary.history
    terms = sorted(metrics["final"].keys() - {"grad_norm", "grad_norm_max", "loss"})
    sections = [
        report.table(f"Fine-tuning for {config.task}", _facts(config, metrics)),
        report.curves("Losses", rows, ("loss", *terms), "loss"),
        report.curves("Learning rate", rows, ("lr",), "rate of the head"),
        report.curves("Gradient norm", rows, ("grad_norm", "grad_norm_max"), "norm before the clip"),
        training_samples(config, source),
        answers(config, model),
    ]
    return {"title": f"Fine-tuning for {config.task}", "sections": sections}


def _facts(config: FinetuneConfig, metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        ("loss at the start", metrics["loss_first"]),
        ("loss at the end", metrics["loss_final"]),
        ("steps", metrics["steps"]),
        ("images seen", _said_seen(metrics)),
        ("parameters trained", metrics["trained_parameters"]),
        ("arithmetic", f"{metrics['flops']:.3g} FLOP"),
        ("training time", f"{metrics['seconds']:.1f} s"),
        ("steps skipped for a non-finite gradient", metrics["skipped_steps"]),
        ("samples that could not be read", metrics["unreadable"]),
        ("input", f"{config.image_size[0]} x {config.image_size[1]} pixels"),
    ]
