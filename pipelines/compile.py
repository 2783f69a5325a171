"""Pipelines to KFP IR: deterministic, and checked against the protobuf before it is written."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from components.placement import Placements

NAMES = ("curation", "training", "full")


def pipeline_named(name: str, placements: Placements | None = None, roles: Collection[str] | None = None) -> Any:
    """The pipeline `curation`, `training`, `full` or `stage:STEP`, its tasks placed. Raises ValueError.

    roles: which inputs a stage reads (see stage_pipeline).
    """
    from pipelines import pipelines
    from pipelines.placing import Placer, as_it_comes
    from pipelines.stage_pipeline import stage_pipeline

    place = Placer(placements) if placements else as_it_comes
    kind, _, stage = name.partition(":")
    if kind == "stage" and stage:
        from components.steps import find_steps

        found = find_steps(stage)
        if len(found) != 1:
            raise ValueError(f"{name} means {len(found)} steps; name one of {', '.join(s.name for s in found)}")
        return stage_pipeline(found[0], place, roles)
    if name not in NAMES:
        raise ValueError(f"unknown pipeline {name!r}; choose {', '.join(NAMES)} or stage:STEP")
    return getattr(pipelines, name)(place)


def compile_pipeline(
    name: str, out: Path, placements: Placements | None = None, roles: Collection[str] | None = None
) -> Path:
    """Compile a pipeline to `out` and check it; `placements` say where its steps run, and on what.

    roles: which inputs a stage reads; by default all but optional ones.

    Raises ValueError when the IR is not what the protobufs define.
    """
    from kfp import compiler

    compiler.Compiler().compile(pipeline_named(name, placements, roles), str(out))
    check_ir(out)
    return out


def check_ir(path: Path) -> None:
    """Raises ValueError when a field of the IR is unknown to the pipeline-spec protobuf."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    document, *platforms = yaml.safe_load_all(path.read_text())
    try:
        json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(document["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
        for platform in platforms:
            json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    except json_format.ParseError as error:
        raise ValueError(f"{path} is not a pipeline specification: {error}") from error
