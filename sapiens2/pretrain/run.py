"""One pretraining run: shards in; a backbone, its curves and its held-out loss out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sapiens2.engine import report, storage
from sapiens2.engine.config import recipe_of
from sapiens2.engine.control import PLAIN, Control
from sapiens2.engine.loop import TrainSummary, train
from sapiens2.engine.parallel import plain
from sapiens2.engine.world import World, cpu_threads, joined
from sapiens2.model.backbone import build_backbone
from sapiens2.model.weights import check_weights
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.cost import step_cost
from sapiens2.pretrain.feature_pictures import attention_pictures, feature_pca, foreground_pca
from sapiens2.pretrain.held_out import HeldOut, held_out_batches, held_out_loss, with_rows
from sapiens2.pretrain.memory import check_fits
from sapiens2.pretrain.objective import PretrainObjective
from sapiens2.pretrain.pictures import completions
from sapiens2.pretrain.source import PretrainSource

SHOWN = 6  # pictures of each kind in the report
TERM_NORMS = ("grad_norm_mae", "grad_norm_contrastive", "grad_norm_koleo")
COLLAPSE = ("mutual_information", "prototypes_used", "cls_std", "rankme")


def pretrain(
    config: PretrainConfig,
    *,
    train_files: list[str],
    val_files: list[str],
    out: str,
    state: str,
    init: str | None = None,
    control: Control = PLAIN,
) -> dict[str, Any]:
    """Train a backbone on the shards `train_files` and measure it on `val_files`; all are paths or URIs.

    `init` is a model.safetensors to start from, a released one or ours. Writes `<out>/{model.safetensors, config.json,
    history.jsonl, fragment.json, metrics.json}`, metrics.json last, `<out>/checkpoints/step_<n>.safetensors` for each
    of `config.kept_steps`, and resumes from `<state>` by itself. Returns the metrics, on every rank. Raises ValueError
    for empty or incomplete shards, a batch that cannot fit and weights of another architecture, all before anything is
    allocated, and for a foreign state; FileNotFoundError; Interrupted when asked to stop, Diverged when the gradients
    stay non-finite.
    """
    with joined(config.engine) as world:
        return _pretrain(config, world, train_files, with_rows(val_files), out, state, init, control)


def _pretrain(
    config: PretrainConfig,
    world: World,
    train_files: list[str],
    held_out: list[str],
    out: str,
    state: str,
    init: str | None,
    control: Control,
) -> dict[str, Any]:
    source = PretrainSource(train_files, config)
    source.sample_indices(0, world.rank, world.size * config.engine.micro_batches)  # refuses what does not divide
    check_fits(config, ranks=world.size, device=world.device)
    if init is not None:
        check_init(config, init)
    elif config.knn_check:
        raise ValueError("knn_check compares with the weights that a run starts from: give --init, or turn it off")
    objective = PretrainObjective(config)
    if init is not None:
        objective.load_backbone(init)
    engine = config.engine
    recipe = recipe_of(config) | {
        "init": storage.fingerprint(init)[1] if init is not None else None,
        "pictures": len(source.shards),
    }
    flops = step_cost(config).total
    summary = train(
        objective,
        source,
        engine,
        out=out,
        state=state,
        title="pretrain",
        images_per_step=config.batch,
        flops_per_image=flops,
        recipe=recipe,
        publish_at=config.kept_steps,
        control=control,
    )
    metrics = report.run_metrics(summary, seed=engine.seed, flops_per_image=flops)
    metrics |= {"pictures": len(source.shards), "epochs": summary.images / len(source.shards)}
    metrics["unreadable_pictures"] = len(source.skipped)
    trained = plain(objective, world, lambda: PretrainObjective(config))
    with cpu_threads(engine):
        if trained is not None:
            trained.eval()
            batches = list(held_out_batches(held_out, config)) if held_out else []
            measured = held_out_loss(trained, batches, engine.seed) if batches and config.mae_weight else None
            metrics |= _held_out_metrics(measured)
            if measured is not None:
                told = json.dumps({"mae": measured.errors}).encode()
                storage.write_bytes(storage.join(out, "held_out.json"), told)
            if config.knn_check and init is not None:
                metrics["knn"] = _knn(config, init, trained)
            shown = batches[0] if batches else source.batch(0, 0, 1)
            fragment = _fragment(config, summary, metrics, trained, shown, bool(batches))
            report.publish(out, _config_file(config), fragment, metrics)
    return metrics


def check_init(config: PretrainConfig, init: str) -> None:
    """Raises ValueError or FileNotFoundError unless the weights at `init` are of this architecture; reads a header."""
    with torch.device("meta"):
        model = build_backbone(config.architecture, window_tokenizer=config.window_tokenizer)
    check_weights(model, init)


def _knn(config: PretrainConfig, init: str, trained: PretrainObjective) -> dict[str, Any]:
    """k-NN of the weights at `init` beside that of the teacher, and the verdict."""
    from sapiens2.evaluation.frozen import OurBackbone, load_backbone
    from sapiens2.evaluation.knn_check import knn_check, scenes_for

    before = load_backbone(init, "before", config.architecture)
    after = OurBackbone(trained.teacher, "after")
    found = knn_check(before, after, scenes_for(config.stride, config.image_size), seed=config.engine.seed)
    return found.told() | {"text": found.text()}


def _held_out_metrics(measured: HeldOut | None) -> dict[str, Any]:
    if measured is None:
        return {"held_out_mae": None, "held_out_pictures": 0}
    interval = [measured.low, measured.high]
    return {"held_out_mae": measured.mae, "held_out_mae_interval": interval, "held_out_pictures": measured.pictures}


def _config_file(config: PretrainConfig) -> dict[str, Any]:
    """What is needed to build the model again, and the whole configuration."""
    return {
        "kind": "backbone",
        "size": config.size,
        "window_tokenizer": config.window_tokenizer,
        "image_size": list(config.image_size),
        "config": config.model_dump(mode="json"),
    }


def _fragment(
    config: PretrainConfig,
    summary: TrainSummary,
    metrics: dict[str, Any],
    objective: PretrainObjective,
    batch: dict[str, Tensor],
    held_out: bool,
) -> dict[str, Any]:
    rows = summary.history
    sections = [
        report.table("Pretraining", _facts(config, metrics)),
        report.curves("Losses", rows, ("loss", "mae", "contrastive", "koleo"), "loss"),
        report.curves("Learning rate", rows, ("lr",), "rate"),
        report.curves("Gradient norm", rows, ("grad_norm", "grad_norm_max", *TERM_NORMS), "norm before the clip"),
        *(report.curves(f"Collapse: {name}", rows, (name,), name) for name in COLLAPSE if name in rows[-1]),
        *_pictures(objective, batch, "never trained on" if held_out else "from the training shards"),
    ]
    return {"title": f"Pretraining of the {config.size} backbone", "sections": sections}


def _facts(config: PretrainConfig, metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    mae, count = metrics["held_out_mae"], metrics["held_out_pictures"]
    low, high = metrics.get("held_out_mae_interval", (None, None))
    told = "no picture was held out" if mae is None else f"{mae:.4f} (95 % {low:.4f} to {high:.4f}, {count} pictures)"
    knn = [("k-NN of pose classes, before and after", metrics["knn"]["text"])] if "knn" in metrics else []
    return [
        *knn,
        ("held-out reconstruction loss (1: each patch's own mean)", told),
        ("steps", metrics["steps"]),
        ("images seen", f"{metrics['images']} ({metrics['epochs']:.1f} times {metrics['pictures']} pictures)"),
        ("parameters trained", metrics["trained_parameters"]),
        ("arithmetic", f"{metrics['flops']:.3g} FLOP"),
        ("training time", f"{metrics['seconds']:.1f} s"),
        ("steps skipped for a non-finite gradient", metrics["skipped_steps"]),
        ("pictures that could not be decoded", metrics["unreadable_pictures"]),
        ("input", f"{config.image_size[0]} x {config.image_size[1]} pixels"),
    ]


def _pictures(objective: PretrainObjective, batch: dict[str, Tensor], origin: str) -> list[report.Section]:
    """Reconstructions and feature directions of the first pictures of a batch."""
    count = min(SHOWN, len(batch["globals"]))
    sections = []
    if objective.config.mae_weight:
        strips = [np.concatenate(three, axis=1) for three in completions(objective, batch, count)]
        items = [(strip, "picture | what the student saw | completed") for strip in strips]
        sections.append(report.pictures("Masked reconstruction", items, f"Pictures {origin}."))
    views = batch["globals"][:count, 0]
    teacher = objective.teacher
    strips = _beside(views, [feature_pca(teacher, views), foreground_pca(teacher, views)])
    note = (
        "The three main directions of the teacher's patch features as colours, over all pictures; then of the "
        "foreground alone: the first direction cut by Otsu's threshold, the side that holds more of the top and side "
        f"edges black. Pictures {origin}."
    )
    sections.append(report.pictures("Features", [(s, "picture | features | foreground") for s in strips], note))
    looks = [list(maps) for maps in zip(*attention_pictures(teacher, views))]  # the mean, then head by head
    caption = "picture | mean of the heads | " + " | ".join(f"head {k}" for k in range(1, min(len(looks), 4)))
    items = [(strip, caption) for strip in _beside(views, looks[:4])]
    note = (
        "Where the teacher's class token looks in the last block: black at the weakest patch of a map, yellow at "
        f"the strongest. Pictures {origin}."
    )
    sections.append(report.pictures("Class-token attention", items, note))
    return sections


def _beside(views: Tensor, columns: list[list[np.ndarray]]) -> list[np.ndarray]:
    """One strip a picture: the picture, then its place in each column."""
    return [np.concatenate(row, axis=1) for row in zip(views.numpy(), *columns)]
