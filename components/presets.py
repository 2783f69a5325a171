"""Presets: for every family of steps, the configuration that a profile and a preset stand for.

A profile chooses models (builtin, small, full); a preset chooses sizes (demo: minutes on two cores; micro: seconds).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from components.steps import Step, load


def _stage(step: Step, profile: str, preset: str) -> Any:
    config = (
        load(step.config)() if step.name == "card" else load(f"curation.stages.{step.name}:profile_config")(profile)
    )
    return config.model_copy(update=MICRO.get(step.name, {})) if preset == "micro" else config


# What shrinks for a dozen pictures.
MICRO: dict[str, dict[str, Any]] = {
    "ingest": {"rows_per_partition": 8},
    "export": {"rows_per_shard": 8},
}


def _pretrain(step: Step, profile: str, preset: str) -> Any:
    return load(f"sapiens2.pretrain.recipes:{preset}")()


def _finetune(step: Step, profile: str, preset: str) -> Any:
    return load(f"sapiens2.tasks.recipes:{preset}")(step.task)


def _evaluate(step: Step, profile: str, preset: str) -> Any:
    return load(f"sapiens2.evaluation.recipes:{preset}")(step.task)


def _report(step: Step, profile: str, preset: str) -> Any:
    return load(step.config)()


PRESET_CONFIGS: dict[str, Callable[[Step, str, str], Any]] = {
    **dict.fromkeys(("ingest", "detect", "score", "filter", "dedup", "cluster", "balance", "export", "card"), _stage),
    "pretrain": _pretrain,
    "finetune": _finetune,
    "evaluate": _evaluate,
    "report": _report,
}
