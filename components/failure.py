"""Where a step failed and which command runs it again, as notes on the error: a traceback ends with them, and so does
what a command prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from shlex import quote
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from components.artifacts import Artifact
from components.settings import PRESETS, PROFILES, Settings
from components.steps import STEPS, TASKS, Step


def told(error: BaseException) -> str:
    """The error's message and its notes, a line each."""
    return "\n".join([str(error) or type(error).__name__, *notes(error)])


def notes(error: BaseException) -> list[str]:
    """What was added to an error on its way."""
    return list(getattr(error, "__notes__", ()))


def note(error: BaseException, *texts: str) -> None:
    """Add what the error does not say yet."""
    for text in texts:
        if text and text not in notes(error):
            error.add_note(text)


def rerun_note(
    step: Step, config: BaseModel, inputs: Mapping[str, Artifact], root: str, pool: str | None = None
) -> str:
    """The last line of a failed step; empty for what no pipeline runs, like an import, whose command is its user's."""
    if step.name not in STEPS:
        return ""
    return f"run it again: {rerun_command(step, config, inputs, root, pool)}"


def rerun_command(
    step: Step, config: BaseModel, inputs: Mapping[str, Artifact], root: str, pool: str | None = None
) -> str:
    """The command line that runs a step on these inputs with this configuration again."""
    words = ["sapiens2", "step", step.name, "--root", root]
    if step.name == "ingest":
        words += ["--pool", pool or "POOL"]
    roles = {read.role for read in step.inputs}
    for role, artifact in sorted(inputs.items()):
        if role in roles and role in (artifact.kind, "checkpoint" if artifact.kind in TASKS else "probe"):
            words += ["--input", repr(artifact)]
    return " ".join(quote(word) for word in [*words, *_settings_words(step, config)])


def _settings_words(step: Step, config: BaseModel) -> list[str]:
    """--profile, --preset and as few --set as give this configuration."""
    wanted, found = _fields(config), []
    for profile in PROFILES:
        for preset in PRESETS:
            base = _fields(Settings(profile, preset).config(step))
            words = ["--profile", profile] if profile != PROFILES[0] else []
            words += ["--preset", preset] if preset != PRESETS[0] else []
            for key, value in wanted.items():
                if key not in base or base[key] != value:
                    words += ["--set", f"{step.name}.{key}={json.dumps(value)}"]
            found.append(words)
    return min(found, key=len)


def _fields(config: BaseModel, prefix: str = "") -> dict[str, Any]:
    """JSON values by dotted names, as --set takes them."""
    found: dict[str, Any] = {}
    plain = config.model_dump(mode="json")
    for name in type(config).model_fields:
        inner = getattr(config, name)
        found |= _fields(inner, f"{prefix}{name}.") if isinstance(inner, BaseModel) else {prefix + name: plain[name]}
    return found


def failing_picture(images: pa.Table, work: Callable[[pa.Table], object]) -> str:
    """Which row of `images` makes `work` fail, where one does and another does not: found by trying them one by one.

    Empty where no single picture is at fault.
    """
    suspect, passed = -1, False
    for row in range(images.num_rows):
        try:
            work(images.slice(row, 1))
            passed = True
        except Exception:
            if suspect >= 0:
                return ""
            suspect = row
        if passed and suspect >= 0:
            image_id, source = (images[name][suspect].as_py() for name in ("image_id", "source"))
            return f"the picture that fails: {image_id} ({source})"
    return ""
