"""What is sent to a KFP server: a compiled pipeline and its arguments, checked against each other first."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from components.artifacts import Store
from components.choice import probe_of
from components.settings import Settings
from components.steps import BY_PRODUCT, STEPS, Step, find_steps, pipeline_steps
from components.storage import StorageError

# IR type -> what a value of that type is in Python
TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


def steps_of(pipeline: str) -> tuple[Step, ...]:
    """The steps that `curation`, `training`, `full` or `stage:STEP` runs. Raises ValueError for another name."""
    kind, _, stage = pipeline.partition(":")
    if kind == "stage" and stage:
        return find_steps(stage)
    return pipeline_steps(None if pipeline == "full" else pipeline)


def parameters(package: Path) -> dict[str, dict[str, Any]]:
    """The parameters of a compiled pipeline: name -> its definition in the IR (parameterType, defaultValue, ...)."""
    document = next(iter(yaml.safe_load_all(package.read_text())))
    found: dict[str, dict[str, Any]] = document["root"].get("inputDefinitions", {}).get("parameters", {})
    return found


def check_arguments(package: Path, arguments: Mapping[str, Any]) -> None:
    """Raises ValueError naming an argument that the pipeline does not take, lacks, or takes in another type.

    `kfp.Client` sends whatever it is given, and a run would fail on the server minutes later.
    """
    defined = parameters(package)
    for name, value in arguments.items():
        if name not in defined:
            near = difflib.get_close_matches(name, defined, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"the pipeline takes no parameter {name!r}: it takes {', '.join(sorted(defined))}{hint}")
        wanted = defined[name]["parameterType"]
        fits = isinstance(value, TYPES[wanted]) and (wanted == "BOOLEAN" or not isinstance(value, bool))
        if not fits:
            raise ValueError(f"the parameter {name!r} is {type(value).__name__} {value!r}, and must be {wanted}")
    optional = {name for name, spec in defined.items() if spec.get("isOptional") or "defaultValue" in spec}
    missing = sorted(set(defined) - optional - set(arguments))
    if missing:
        raise ValueError(f"the pipeline needs {', '.join(missing)}: give {_mend(missing[0])}")


def _mend(name: str) -> str:
    role = name.removesuffix("_manifest")
    if name == "pool":
        return "--pool, a folder or list that every step of the cluster can read"
    return f"--input {role}=VERSION or --param {name}=URI" if role != name else f"--param {name}=VALUE"


def arguments_for(
    package: Path,
    settings: Settings,
    root: str,
    *,
    pool: str | None,
    given: Mapping[str, Any],
    explicit: Mapping[str, str],
    code_version: str,
    steps: Sequence[Step] = (),
) -> dict[str, Any]:
    """The arguments of a run: root, settings and code version, the pool, and a manifest's URI for each input.

    An input is the artifact in `given` (by role), else the latest under the root of the step that makes it, as `steps`,
    those of the pipeline, say. `explicit` wins over everything and is passed on as it is, so that inputs need no access
    to the root from here. The result is checked.
    """
    defined = parameters(package)
    arguments: dict[str, Any] = {"root": root, "settings": settings.as_dict(), "code_version": code_version}
    if pool is not None:
        arguments["pool"] = pool
    roles = [name.removesuffix("_manifest") for name in defined if name.endswith("_manifest")]
    producers = {product: name for name, product in BY_PRODUCT.items()} | {"probe": "probe"}
    producers |= {read.role: read.producer for step in steps for read in step.inputs if not read.optional}
    producers = {role: made for role, made in producers.items() if f"{role}_manifest" not in explicit}
    for role in roles:
        if f"{role}_manifest" not in explicit:
            found = _manifest_of(role, producers, root, given)
            if found is not None:
                arguments[f"{role}_manifest"] = found
    unused = sorted(set(given) - set(roles))
    if unused:
        raise ValueError(f"the pipeline reads no {', '.join(unused)}: it reads {', '.join(roles) or 'no artifacts'}")
    arguments |= {name: _typed(name, text, defined) for name, text in explicit.items()}
    check_arguments(package, arguments)
    return arguments


def roles_of(
    step: Step, settings: Settings, root: str, given: Mapping[str, Any], explicit: Mapping[str, str]
) -> set[str]:
    """The inputs that a step of its own reads with these settings, by role, and those that `explicit` names.

    What made an input is asked where that decides (imported weights leave no checkpoint to choose, so that no probe is
    read); of a manifest in `explicit` it is not known from here.
    """
    made_by: dict[str, str] = {}
    for role in {read.chooses for read in step.inputs if read.chooses}:
        (producer,) = (read.producer for read in step.inputs if read.role == role)
        if f"{role}_manifest" not in explicit:
            artifact = _artifact_of(role, {role: producer}, root, given)
            made_by |= {role: artifact.manifest.step} if artifact else {}
    reads = step.reads(settings.config(step), made_by)
    named = {read.role for read in step.inputs if f"{read.role}_manifest" in explicit}
    return named | {read.role for read in reads if not read.optional}


def _typed(name: str, text: str, defined: Mapping[str, Mapping[str, Any]]) -> Any:
    if defined.get(name, {}).get("parameterType", "STRING") == "STRING":
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--param {name}: {text!r} is not JSON, which this parameter needs") from error


def _manifest_of(role: str, producers: Mapping[str, str], root: str, given: Mapping[str, Any]) -> str | None:
    artifact = _artifact_of(role, producers, root, given)
    return Store(root).storage.full(f"{artifact.folder}/manifest.json") if artifact else None


def _artifact_of(role: str, producers: Mapping[str, str], root: str, given: Mapping[str, Any]) -> Any:
    """The artifact given for a role, else the latest of the step that makes it; None when there is none."""
    if role not in given and role not in producers:
        return None
    try:
        store = Store(root)
        store.storage.reach()
    except StorageError as error:
        mend = f"or give --param {role}_manifest=URI: then only the cluster has to reach the root"
        raise StorageError(f"{error}; {mend}") from error
    if role in given:
        return given[role]
    run = _artifact_of("backbone", producers, root, given) if role == "probe" else None
    return probe_of(store, run.version) if run else store.latest(STEPS[producers[role]].latest_name)


def parse_parameters(pairs: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE pairs of the command line. Raises ValueError."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--param {pair!r} is not of the form NAME=VALUE")
        found[name] = value
    return found
