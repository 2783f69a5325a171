"""Every arm with every seed: pretrained, probed, remembered. What is done stays done, whoever interrupts."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sapiens2.engine import storage
from sapiens2.engine.config import recipe_of
from sapiens2.engine.control import Control
from sapiens2.engine.interrupt import Interrupted
from sapiens2.engine.world import cpu_threads
from sapiens2.evaluation.ablation.arms import Arm, changed
from sapiens2.evaluation.config import ProbeConfig
from sapiens2.evaluation.frozen import OurBackbone
from sapiens2.evaluation.probe import ProbeResult, probe_backbone
from sapiens2.evaluation.probe_scenes import ProbeScenes
from sapiens2.model.backbone import build_backbone
from sapiens2.model.weights import load_weights

Array = np.ndarray
FACTS = ("steps", "images", "flops", "skipped_steps", "held_out_mae", "loss_final", "seconds", "pictures")


@dataclass(frozen=True)
class Outcome:
    """One arm with one seed: the value of every probe, the error of every scene, what the run was like."""

    arm: str
    seed: int
    main: dict[str, float]
    baseline: dict[str, float]
    errors: dict[str, Array] = field(repr=False)
    facts: dict[str, Any]
    weights: str


def run_arms(
    arms: Sequence[Arm],
    seeds: Sequence[int],
    probe: ProbeConfig,
    *,
    out: str,
    val_files: Sequence[str] = (),
    stop: Callable[[], bool] | None = None,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Pretrain and probe each arm with each seed, all arms of a seed before the next one.

    Arms that reconstruct are also measured on the pictures of `val_files`. `out` is a folder or s3:// URI that keeps
    every finished run and the state of the one in flight: the same call continues. `stop`, asked between steps, saves
    the state and raises Interrupted.
    """
    scenes = ProbeScenes(probe)
    outcomes = []
    for seed in seeds:
        for arm in arms:
            folder = storage.join(out, f"{arm.name.replace(' ', '-').lower()}-seed{seed}")
            outcome = _read(arm, seed, probe, folder)
            if outcome is None:
                if stop is not None and stop():
                    raise Interrupted(0, arm.config.engine.steps, folder)
                outcome = _run(arm, seed, probe, scenes, folder, list(val_files), stop)
                say(_line(outcome))
            outcomes.append(outcome)
    return outcomes


def _line(outcome: Outcome) -> str:
    told = "  ".join(f"{name} {value:.3f}" for name, value in outcome.main.items() if "." not in name)
    return f"{outcome.arm}, seed {outcome.seed}: {told}  ({outcome.facts['seconds']:.0f} s of training)"


def _run(
    arm: Arm,
    seed: int,
    probe: ProbeConfig,
    scenes: ProbeScenes,
    folder: str,
    val_files: list[str],
    stop: Callable[[], bool] | None,
) -> Outcome:
    from sapiens2.pretrain.run import pretrain

    config = changed(arm.config, engine={"seed": seed})
    out, began = storage.join(folder, "out"), time.monotonic()
    metrics = pretrain(
        config,
        train_files=list(arm.files),
        val_files=val_files,
        out=out,
        state=storage.join(folder, "state"),
        control=Control(stop=stop, shows=False),
    )
    weights = storage.join(out, "model.safetensors")
    backbone = build_backbone(config.architecture, window_tokenizer=config.window_tokenizer)
    load_weights(backbone, weights)
    with cpu_threads(config.engine):
        result = probe_backbone(OurBackbone(backbone, f"{arm.name}, seed {seed}"), probe, scenes=scenes)
    facts = {name: metrics[name] for name in FACTS if name in metrics}
    facts |= {"grad_norm_max": metrics["final"].get("grad_norm_max"), "total_seconds": time.monotonic() - began}
    facts |= {k: metrics["final"][k] for k in ("mae", "contrastive", "mutual_information") if k in metrics["final"]}
    return _write(arm, seed, probe, folder, weights, result, facts)


def _key(arm: Arm, seed: int, probe: ProbeConfig) -> str:
    """What the outcome depends on."""
    told = {"arm": recipe_of(arm.config), "seed": seed, "probe": recipe_of(probe), "files": _digests(arm.files)}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _digests(files: Sequence[str]) -> list[str]:
    return [storage.fingerprint(file)[1] for file in files]


def _write(
    arm: Arm, seed: int, probe: ProbeConfig, folder: str, weights: str, result: ProbeResult, facts: dict[str, Any]
) -> Outcome:
    buffer = io.BytesIO()
    errors: dict[str, Any] = dict(result.per_image)
    np.savez_compressed(buffer, **errors)
    storage.write_bytes(storage.join(folder, "errors.npz"), buffer.getvalue())
    told = {"key": _key(arm, seed, probe), "main": result.main, "baseline": result.baseline, "facts": facts}
    storage.write_bytes(storage.join(folder, "outcome.json"), json.dumps(told, indent=1).encode())
    return Outcome(arm.name, seed, result.main, result.baseline, result.per_image, facts, weights)


def _read(arm: Arm, seed: int, probe: ProbeConfig, folder: str) -> Outcome | None:
    """A finished outcome; None if there is none. Raises ValueError if the folder holds another experiment's."""
    place = storage.join(folder, "outcome.json")
    if not storage.exists(place):
        return None
    told = json.loads(storage.read_bytes(place))
    if told["key"] != _key(arm, seed, probe):
        raise ValueError(
            f"{folder} holds another experiment (other settings or data): give another folder for this one"
        )
    with np.load(io.BytesIO(storage.read_bytes(storage.join(folder, "errors.npz")))) as file:
        errors = {name: file[name] for name in file.files}
    weights = storage.join(folder, "out", "model.safetensors")
    return Outcome(arm.name, seed, told["main"], told["baseline"], errors, told["facts"], weights)
