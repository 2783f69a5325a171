"""Presets: for every family of steps, the configuration that a profile and a preset stand for.

A profile chooses models (builtin, small, full); a preset chooses sizes (demo: minutes on two cores; micro: seconds).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from components.steps import Step, load


def _stage(step: Step, profile: str, preset: str) -> Any:
    config = load(f"curation.stages.{step.name}:profile_config")(profile)
    return _in_process(config, **MICRO.get(step.name, {})) if preset == "micro" else config


# What shrinks for a dozen pictures.
MICRO: dict[str, dict[str, Any]] = {
    "ingest": {"rows_per_partition": 8},
    "export": {"rows_per_shard": 8},
}


def _in_process(config: Any, **smaller: Any) -> Any:
    """The configuration with the work done in the step's own process: at this size, starting workers is the cost."""
    workers = {"workers": 0} if "workers" in type(config).model_fields else {}
    return config.model_copy(update={**workers, **smaller})


def _pretrain(step: Step, profile: str, preset: str) -> Any:
    config = load(f"sapiens2.pretrain.recipes:{preset}")()
    return _in_process(config) if preset == "micro" else config


def _finetune(step: Step, profile: str, preset: str) -> Any:
    config = load(f"sapiens2.tasks.recipes:{preset}")(step.task)
    return _in_process(config) if preset == "micro" else config


def _evaluate(step: Step, profile: str, preset: str) -> Any:
    return load(f"sapiens2.evaluation.recipes:{preset}")(step.task)


def _probe(step: Step, profile: str, preset: str) -> Any:
    return load(f"sapiens2.evaluation.recipes:{preset}_probe")()


def _report(step: Step, profile: str, preset: str) -> Any:
    return load(step.config)()


PRESET_CONFIGS: dict[str, Callable[[Step, str, str], Any]] = {
    **dict.fromkeys(("ingest", "detect", "score", "filter", "dedup", "cluster", "balance", "export", "card"), _stage),
    "pretrain": _pretrain,
    "probe": _probe,
    "finetune": _finetune,
    "evaluate": _evaluate,
    "report": _report,
}
