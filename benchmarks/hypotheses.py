"""Four hypotheses about the objective, written down before the runs, tested on synthetic people.

H1  Both terms do at least as well as reconstruction alone on semantic probes (pose class, joints from one vector).
H2  Both terms do at least as well as contrast alone on colours (clothes and skin from one vector, the albedo probe).
H3  Both terms lie within the interval of the best objective, or above it, on all five dense tasks.
H4  With 64 labelled pictures and equal steps, fine-tuning from both beats fine-tuning from scratch on three tasks.

Three objectives with three seeds each, at equal arithmetic, then frozen probes on held-out factors; H4 fine-tunes.
Everything that is done stays in --out: stop it at will, and the same command goes on.

    python benchmarks/hypotheses.py --out /tmp/hypotheses          # nano backbone, 64 x 48 pixels, CPU
    python benchmarks/hypotheses.py --out /tmp/hypotheses --gpu    # 20M parameters, 128 x 96, one GPU, half an hour
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sapiens2.data.synthetic.shards import write_shard
from sapiens2.engine import storage
from sapiens2.engine.interrupt import Interrupted
from sapiens2.evaluation.ablation.arms import Arm, changed, objective_arms
from sapiens2.evaluation.ablation.comparison import Difference, differences, interval
from sapiens2.evaluation.ablation.report import arms_table, differences_table, facts_table, text
from sapiens2.evaluation.ablation.runner import Outcome, run_arms
from sapiens2.evaluation.config import ProbeConfig
from sapiens2.evaluation.few_labels import tune
from sapiens2.evaluation.probe_scenes import ProbeScenes
from sapiens2.model.backbone import build_backbone
from sapiens2.model.weights import load_weights
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.recipes import nano

SEMANTIC = ("pose_class.linear.cls", "pose_class.linear.mean", "keypoints.cls", "keypoints.mean")
COLOUR = ("colour.cls", "colour.mean", "albedo")
LABELS = 64
DENSE = ("pose", "segmentation", "normal", "pointmap", "albedo")


def base_config(gpu: bool) -> PretrainConfig:
    """The run that all objectives share but for the loss."""
    base = changed(nano(320), engine={"threads": 1})
    if not gpu:
        return base
    return changed(
        base,
        changes={"dim": 384, "layers": 11, "heads": 6},
        image_size=(128, 96),
        local_size=(64, 48),
        batch=256,
        decoder_dim=256,
        decoder_layers=4,
        prototypes=2048,
        engine={"steps": 4000, "warmup_steps": 200, "lr": 1e-3, "checkpoint_every": 250, "threads": 0},
        ema=0.992,
        freeze_prototypes_steps=100,
        cache_mb=16384,
        decode_threads=8,
    )


def probe_config(gpu: bool) -> ProbeConfig:
    """The probes that judge them."""
    return ProbeConfig(n_train=512, n_val=16, n_test=512, image_size=(128, 96) if gpu else (64, 48))


# ---- H4: few labels ----


def few_labels(outcomes: list[Outcome], base: PretrainConfig, gpu: bool, out: Path, stop: Callable[[], bool]) -> Any:
    """Errors of held-out scenes after training on 64 pictures, by task: from both, and from scratch, per seed."""
    found: dict[str, dict[str, list[np.ndarray]]] = {task: {"both": [], "scratch": []} for task in DENSE}
    for outcome in (o for o in outcomes if o.arm == "both"):
        for start in ("both", "scratch"):
            place = out / f"few-{start}-seed{outcome.seed}.npz"
            if not place.exists():
                if stop():
                    raise Interrupted(0, 0, str(out))
                weights = outcome.weights if start == "both" else None
                np.savez_compressed(place, **_tuned(base, weights, outcome.seed, probe_config(gpu)))
            with np.load(place) as file:
                for task in DENSE:
                    found[task][start].append(file[task])
    return found


def _tuned(base: PretrainConfig, weights: str | None, seed: int, probe: ProbeConfig) -> dict[str, Any]:
    """Backbone and the probe's decoder trained together on 64 scenes; the error of every held-out scene by task."""
    config = probe.model_copy(update={"seed": seed, "batch": 16})
    scenes, errors = ProbeScenes(config), {}
    for task in DENSE:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            backbone = build_backbone(base.architecture)
        if weights is not None:
            load_weights(backbone, weights)
        errors[task] = tune(task, backbone, LABELS, config, scenes)
    return errors


# ---- verdicts ----


def verdicts(outcomes: list[Outcome], found: dict[str, dict[str, list[np.ndarray]]] | None) -> dict[str, Any]:
    """What became of H1 to H4; a hypothesis fails where an interval excludes it."""
    gaps = {(d.arm, d.probe): d for d in differences(outcomes, "both")}
    told: dict[str, Any] = {
        "H1": _at_least(gaps, "mae", SEMANTIC),
        "H2": _at_least(gaps, "contrastive", COLOUR),
        "H3": _near_best(gaps),
    }
    if found is not None:
        told["H4"] = _few(found)
    return told


def _at_least(gaps: dict[tuple[str, str], Difference], arm: str, probes: tuple[str, ...]) -> dict[str, Any]:
    """`both` is at least as good as an arm where the arm's error is not surely lower."""
    rows = {probe: gaps[arm, probe] for probe in probes if (arm, probe) in gaps}
    return {
        "holds": all(d.verdict != "better" for d in rows.values()),
        "probes": {probe: {"difference": d.value, "low": d.low, "high": d.high} for probe, d in rows.items()},
    }


def _near_best(gaps: dict[tuple[str, str], Difference]) -> dict[str, Any]:
    beaten = {task: [arm for arm in ("mae", "contrastive") if gaps[arm, task].verdict == "better"] for task in DENSE}
    return {"holds": not any(beaten.values()), "better_than_both": beaten}


def _few(found: dict[str, dict[str, list[np.ndarray]]]) -> dict[str, Any]:
    rows = {}
    for task, starts in found.items():
        value, low, high = interval(np.stack(starts["both"]) - np.stack(starts["scratch"]))
        rows[task] = {"difference": value, "low": low, "high": high, "scratch": float(np.nanmean(starts["scratch"]))}
    won = [task for task, row in rows.items() if row["high"] < 0]
    return {"holds": len(won) >= 3, "won": won, "tasks": rows}


def main() -> None:
    """Runs what is not done yet, then prints tables and verdicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="Where finished runs are kept.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scenes", type=int, help="Pictures to pretrain on; default 4096, with --gpu 100000.")
    parser.add_argument("--minutes", type=float, help="Stop after so long; the same command continues.")
    parser.add_argument("--gpu", action="store_true", help="The larger experiment.")
    parser.add_argument("--only-pretraining", action="store_true", help="Leave H4 for another call.")
    given = parser.parse_args()
    began = time.monotonic()
    stop = lambda: given.minutes is not None and time.monotonic() - began > 60 * given.minutes  # noqa: E731
    height, width = (192, 144) if given.gpu else (96, 72)
    count = given.scenes or (100_000 if given.gpu else 4096)
    shard = write_shard(given.out / f"people-{count}-{height}x{width}.parquet", count, height, width, "train")
    base, probe = base_config(given.gpu), probe_config(given.gpu)
    arms: list[Arm] = objective_arms(base, [str(shard)])
    try:
        outcomes = run_arms(arms, given.seeds, probe, out=storage.join(str(given.out), "runs"), stop=stop)
        found = None if given.only_pretraining else few_labels(outcomes, base, given.gpu, given.out, stop)
    except Interrupted as stopped:
        print(stopped)
        sys.exit(130)
    for table in (arms_table(outcomes), differences_table(differences(outcomes, "both")), facts_table(outcomes)):
        print(text(*table), end="\n\n")
    told = verdicts(outcomes, found)
    for name, verdict in told.items():
        print(f"{name}: {'holds' if verdict['holds'] else 'does not hold'}")
    print(json.dumps({"benchmark": "hypotheses", "seeds": given.seeds, **told}))


if __name__ == "__main__":
    main()
