"""From the options of a command to the settings of a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click


def absolute(path: str) -> str:
    """A path as it is valid in another working directory; URIs as they are."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def backbone_anywhere(name: str) -> str:
    """The name of a backbone as it is valid in another working directory: a FILE, or those in `hf:FOLDER:FILE`.

    Raises ValueError for a folder without a config.json.
    """
    from sapiens2.model.foreign_files import is_folder
    from sapiens2.model.foreign_names import LIBRARIES, LOCAL, RANDOM

    library, *rest = name.split(":", 2)
    if library in LIBRARIES and rest:
        if library == "hf" and (rest[0].startswith(LOCAL) or is_folder(rest[0])):
            rest[0] = absolute(rest[0])
            if not is_folder(rest[0]):
                raise ValueError(f"{name}: there is no {rest[0]}/config.json; give a folder with a config.json")
        rest[1:] = [file if file in ("", RANDOM) else absolute(file) for file in rest[1:]]
        return ":".join((library, *rest))
    return name if rest else absolute(name)


def settings_of(
    pairs: tuple[str, ...],
    file: str | None,
    profile: str,
    preset: str,
    recipe: str = "",
    init: str | None = None,
    retry_failed: bool = False,
) -> Any:
    """The Settings that the options of a command stand for (see cli_options); --set wins over a file."""
    from components.settings import Settings, parse_overrides

    overrides = {**_from_yaml(file), **parse_overrides(pairs)}
    if init:
        overrides["pretrain.init"] = absolute(init) if init.endswith(".safetensors") else init
    for field, value in overrides.items():
        if field.endswith(".backbone") and isinstance(value, str) and value:
            overrides[field] = backbone_anywhere(value)
        elif field.endswith(".compare") and isinstance(value, list | tuple):
            overrides[field] = [backbone_anywhere(str(each)) for each in value]
    if retry_failed:
        overrides["ingest.retry_failed"] = True
    return Settings(profile=profile, preset=preset, overrides=overrides, recipe=recipe)


def refuse_cold_start(chosen: dict[str, Any]) -> None:
    """Raises ValueError for a recipe that continues weights when none are given."""
    from sapiens2.pretrain.recipe_names import recipe_named

    named = recipe_named(chosen["recipe"]) if chosen["recipe"] else None
    given = chosen["init"] or any(pair.startswith("pretrain.init=") for pair in chosen["pairs"])
    if named and named.starts_from and not given:
        raise ValueError(
            f"the recipe {chosen['recipe']} continues from {named.starts_from}: name the weights with --init, a "
            ".safetensors file or backbone=VERSION"
        )


def refuse_retry(chosen: dict[str, Any], steps: Iterable[str]) -> None:
    """Raises UsageError when addresses are to be asked again by steps (by name) of which none asks any."""
    if chosen["retry_failed"] and "ingest" not in steps:
        raise click.UsageError("--retry-failed is for what runs ingest: run, step ingest, submit full or curation")


def _from_yaml(file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    import yaml

    try:
        data = yaml.safe_load(Path(file).read_text()) or {}
    except FileNotFoundError as error:
        raise ValueError(f"there is no configuration file {file}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text: --config takes a YAML of overrides") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(data, dict) or not all(isinstance(fields, dict) for fields in data.values()):
        raise ValueError(f"{file} must map steps to fields, like `filter: {{min_person_px: 256}}`")
    return {f"{step}.{name}": value for step, fields in data.items() for name, value in fields.items()}


def tuned(settings: Any, task: str, recipe: str, backbone: str | None) -> Any:
    """Settings with a published recipe beneath what the user has set, and the backbone's name."""
    from dataclasses import replace

    step, below = f"finetune-{task}", {}
    if recipe:
        from sapiens2.tasks.recipes import named_fields

        below = {f"{step}.{name}": value for name, value in named_fields(task, recipe).items()}
    family = {f"{step}.{k.partition('.')[2]}": v for k, v in settings.overrides.items() if k.startswith("finetune.")}
    above = {f"{step}.backbone": backbone_anywhere(backbone)} if backbone else {}
    return replace(settings, overrides={**below, **family, **settings.overrides, **above})
