"""From profile, preset and overrides to the full configuration of every step.

Keys of an override are always `step.field`; a family (`finetune.steps`) addresses all its tasks, a step
(`finetune-pose.steps`) one of them.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from components.steps import STEPS, Step, load

PROFILES = ("builtin", "small", "full")
PRESETS = ("demo", "micro")


class SettingsError(ValueError):
    """A setting is unknown or out of range; the message names the key and what is accepted."""


@dataclass(frozen=True)
class Settings:
    """What the user chose: a profile (models), a preset (sizes) and overrides `step.field -> value`.

    `recipe` names a pretraining recipe in place of the preset's; the tasks then take its size.
    """

    profile: str = "builtin"
    preset: str = "demo"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""

    def __post_init__(self) -> None:
        for what, value, known in (("profile", self.profile, PROFILES), ("preset", self.preset, PRESETS)):
            if value not in known:
                raise SettingsError(f"unknown {what} {value!r}; choose one of {', '.join(known)}")
        if self.recipe:
            self._recipe()
        families = set(STEPS) | {step.family for step in STEPS.values()}
        for key in self.overrides:
            step, _, name = key.partition(".")
            if not name or step not in families:
                near = difflib.get_close_matches(step, families, 1)
                hint = f"; did you mean {near[0]}.{name or 'FIELD'}?" if near else ""
                raise SettingsError(
                    f"unknown setting {key!r}: keys are STEP.FIELD, STEP one of {_list(families)}{hint}"
                )

    def as_dict(self) -> dict[str, Any]:
        """How settings travel through a pipeline's parameters."""
        chosen = {"profile": self.profile, "preset": self.preset, "overrides": dict(self.overrides)}
        return chosen | ({"recipe": self.recipe} if self.recipe else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """The inverse of as_dict; what is left out has its default. Raises SettingsError for an unknown key."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise SettingsError(f"settings have no {_list(unknown)}; they have {_list(f.name for f in fields(cls))}")
        return cls(**_whole_numbers(dict(values)))

    def _recipe(self) -> Any:
        """The pretraining recipe that was chosen. Raises SettingsError with the names that there are."""
        try:
            return load("sapiens2.pretrain.recipe_names:recipe_named")(self.recipe)
        except ValueError as error:
            raise SettingsError(str(error)) from error

    def _base(self, step: Step) -> BaseModel:
        """The configuration before overrides: the preset's, or the recipe's for pretraining."""
        base = _preset_config(step, self.profile, self.preset)
        if not self.recipe:
            return base
        chosen: BaseModel = self._recipe().make()
        if step.family == "pretrain":
            return chosen
        follows = {"size"} & base.__class__.model_fields.keys() if step.family == "finetune" else set()
        return base.model_copy(update={name: getattr(chosen, name) for name in follows})

    def config(self, step: Step) -> BaseModel:
        """The full configuration of a step. Raises SettingsError naming the key that is wrong."""
        base = self._base(step)
        values: dict[str, Any] = base.model_dump()
        for prefix in (step.family, step.name):  # the narrower key wins
            for key, value in self.overrides.items():
                if key.startswith(f"{prefix}."):
                    _assign(values, key.removeprefix(f"{prefix}."), value, key, type(base))
            if step.family == step.name:
                break
        try:
            return type(base).model_validate(values)
        except ValidationError as error:
            raise SettingsError(_explain(step, error)) from error

    def check(self, steps: Iterable[Step]) -> None:
        """Raises SettingsError when the configuration of a step is wrong, those that only overrides name included.

        A key of a family (`finetune.`) is judged by those of its steps that run, where any does: not each value fits
        each task.
        """
        named = {key.partition(".")[0] for key in self.overrides}
        chosen = {step.name: step for step in steps}
        unheard = named - {step.family for step in chosen.values()}
        chosen |= {s.name: s for s in STEPS.values() if s.name in named or s.family in unheard}
        for step in chosen.values():
            self.config(step)


@cache
def _preset_config(step: Step, profile: str, preset: str) -> BaseModel:
    presets = load("components.presets:PRESET_CONFIGS")
    result: BaseModel = presets[step.family](step, profile, preset)
    return result


def _whole_numbers(value: Any) -> Any:
    """KFP's parameters know only doubles: 301 comes back as 301.0."""
    if isinstance(value, dict):
        return {key: _whole_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _assign(values: dict[str, Any], path: str, value: Any, key: str, model: type[BaseModel]) -> None:
    *parents, leaf = path.split(".")
    here = values
    for name in parents:
        if not isinstance(here.get(name), dict):
            raise SettingsError(f"unknown setting {key!r}; the fields of {model.__name__} are {_list(values)}")
        here = here[name]
    if leaf not in here:
        near = difflib.get_close_matches(leaf, here, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SettingsError(f"unknown setting {key!r}: {leaf!r} is none of the fields {_list(here)}{hint}")
    here[leaf] = value


def _explain(step: Step, error: ValidationError) -> str:
    problems = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        problems.append(f"{step.name}.{where}: {message}" if where else f"{step.name}: {message}")
    return "; ".join(problems)


def _list(names: Any) -> str:
    return ", ".join(sorted(names))


def parse_overrides(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`step.field=value` pairs of the command line; values are JSON where they parse as such, else text."""
    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise SettingsError(f"--set {pair!r} is not of the form step.field=value")
        try:
            overrides[key.strip()] = json.loads(text)
        except json.JSONDecodeError:
            overrides[key.strip()] = text
    return overrides


def recipe_fields(config: BaseModel) -> dict[str, Any]:
    """The part of a configuration that enters the version: every field but those marked `execution`.

    Raises TypeError for a field that is marked neither recipe nor execution.
    """
    result: dict[str, Any] = {}
    for name, info in type(config).model_fields.items():
        extra = info.json_schema_extra
        role = extra.get("role") if isinstance(extra, dict) else None
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            result[name] = recipe_fields(value)
        elif role == "recipe" and isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            result[name] = [recipe_fields(item) for item in value]
        elif role not in ("recipe", "execution"):
            raise TypeError(f"{type(config).__name__}.{name} is marked neither recipe nor execution")
        elif role == "recipe":
            result[name] = config.model_dump(mode="json", include={name})[name]
    return result
