"""A pipeline of one step, generated: an importer for each input's manifest, then the step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

from kfp import dsl

from components import kfp as steps
from components.steps import Step
from pipelines.placing import as_it_comes

TYPES = {"backbone": dsl.Model, "checkpoint": dsl.Model, "probe": dsl.Artifact}
COMMON = ("root", "settings", "code_version")


def stage_pipeline(
    step: Step, place: Callable[[Any, str], Any] = as_it_comes, roles: Collection[str] | None = None
) -> Any:
    """The pipeline `sapiens2-stage-<name>`, reading the inputs of these roles; by default all but optional ones.

    Its parameters are `<role>_manifest` (path or URI of a manifest.json) for each input, `pool` for ingest, and root,
    settings, code_version.
    """
    component = steps.COMPONENTS[step.family]
    if roles is None:
        roles = [read.role for read in step.inputs if not read.optional]
    reads = [read.role for read in step.inputs if read.role in roles]
    manifests = [f"{role}_manifest" for role in reads]
    own = ["pool"] if step.name == "ingest" else []

    names = (*manifests, *own, *COMMON)

    def body(*values: Any) -> None:
        arguments, given = dict(zip(names, values, strict=True)), {}
        for role in reads:
            importer = dsl.importer(
                artifact_uri=arguments[f"{role}_manifest"],
                artifact_class=TYPES.get(role, dsl.Dataset),
                reimport=True,
            )
            given[role] = importer.set_caching_options(False).output
        fixed = {"task": step.task} if step.task else {}
        task = component(**given, **fixed, **{name: arguments[name] for name in (*own, *COMMON)})
        place(task, step.name)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    types = {name: dict if name == "settings" else str for name in names}
    parameters = [inspect.Parameter(name, kind, annotation=types[name]) for name in names]
    body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    body.__annotations__ = types
    body.__name__ = f"stage_{step.name.replace('-', '_')}"
    return dsl.pipeline(name=f"sapiens2-stage-{step.name}", description=step.summary)(body)
