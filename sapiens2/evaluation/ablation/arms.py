"""The arms of each axis: what one question changes in a pretraining run, all else equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.cost import step_cost

Axis = Literal["objective", "curation", "attention", "architecture", "crops"]


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a name, a run, the shards it trains on."""

    name: str
    config: PretrainConfig
    files: tuple[str, ...]

    @property
    def flops(self) -> float:
        """Arithmetic of the whole run."""
        return float(step_cost(self.config).total) * self.config.batch * self.config.engine.steps


def objective_arms(base: PretrainConfig, files: Sequence[str]) -> list[Arm]:
    """Both terms, reconstruction alone (no local views, no teacher), the contrastive terms alone (no decoder)."""
    mae = {"contrastive_weight": 0.0, "koleo_weight": 0.0, "local_views": 0}
    return _arms(base, files, {"both": {}, "mae": mae, "contrastive": {"mae_weight": 0.0}})


def attention_arms(base: PretrainConfig, files: Sequence[str]) -> list[Arm]:
    """Attention over all patches, and the window tokenizer that pools them first: the same pixels, equal arithmetic.

    Raises ValueError when the views do not divide into windows.
    """
    return _arms(base, files, {"global": {"window_tokenizer": False}, "window": {"window_tokenizer": True}})


def architecture_arms(base: PretrainConfig, files: Sequence[str]) -> list[Arm]:
    """The block as it is, and without QK-norm, without shared key heads, without the gate.

    Raises ValueError when the base has too few layers to share key heads in any.
    """
    if all(base.architecture.kv_heads(i) == base.architecture.heads for i in range(base.architecture.layers)):
        raise ValueError(
            f"{base.architecture.layers} layers leave none whose key heads are shared: use more than 16, "
            "for instance changes.layers=18"
        )
    without = {f"no {name}": {"changes": {field: False}} for name, field in _PARTS.items()}
    return _arms(base, files, {"whole": {}, **without})


_PARTS = {"QK-norm": "qk_norm", "GQA": "gqa", "SwiGLU": "swiglu"}


def crops_arms(base: PretrainConfig, files: Sequence[str]) -> list[Arm]:
    """Views of whole pictures, and of the surroundings of a person in half of the samples."""
    return _arms(base, files, {"whole": {"person_crops": 0.0}, "person": {"person_crops": 0.5}})


def curation_arms(base: PretrainConfig, files: Mapping[str, Sequence[str]]) -> list[Arm]:
    """The same run on each selection of pictures; `files` by the name of the arm, the reference first."""
    return [Arm(name, base, tuple(own)) for name, own in files.items()]


def _arms(base: PretrainConfig, files: Sequence[str], changes: Mapping[str, Mapping[str, Any]]) -> list[Arm]:
    """The first arm is the base; the others take as many steps as its arithmetic pays for."""
    configs = {name: changed(base, **fields) for name, fields in changes.items()}
    budget = step_cost(next(iter(configs.values()))).total
    return [Arm(name, of_cost(config, budget, base), tuple(files)) for name, config in configs.items()]


def of_cost(config: PretrainConfig, budget: int, base: PretrainConfig) -> PretrainConfig:
    """The run with its steps, and all that counts in steps, stretched until it costs what `budget` a picture does."""
    ratio = budget / step_cost(config).total
    stretch = lambda steps: round(steps * ratio)  # noqa: E731
    engine = {"steps": stretch(base.engine.steps), "warmup_steps": stretch(base.engine.warmup_steps)}
    return changed(
        config,
        engine=engine,
        teacher_temperature_steps=stretch(base.teacher_temperature_steps),
        freeze_prototypes_steps=stretch(base.freeze_prototypes_steps),
    )


def changed(config: PretrainConfig, **fields: Any) -> PretrainConfig:
    """A copy with other fields, nested ones merged, validated again. Raises ValueError for what does not fit."""
    values = config.model_dump()
    for name, value in fields.items():
        values[name] = {**values[name], **value} if isinstance(value, Mapping) else value
    return PretrainConfig.model_validate(values)
