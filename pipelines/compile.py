"""Pipelines to KFP IR: deterministic, and checked against the protobuf before it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

NAMES = ("curation", "training", "full")


def pipeline_named(name: str) -> Any:
    """The pipeline function `curation`, `training`, `full` or `stage:STEP`. Raises ValueError."""
    from pipelines import pipelines
    from pipelines.stage_pipeline import stage_pipeline

    kind, _, stage = name.partition(":")
    if kind == "stage" and stage:
        from components.steps import find_steps

        found = find_steps(stage)
        if len(found) != 1:
            raise ValueError(f"{name} means {len(found)} steps; name one of {', '.join(s.name for s in found)}")
        return stage_pipeline(found[0])
    if name not in NAMES:
        raise ValueError(f"unknown pipeline {name!r}; choose {', '.join(NAMES)} or stage:STEP")
    return getattr(pipelines, name)


def compile_pipeline(name: str, out: Path) -> Path:
    """Compile a pipeline to `out` and check it. Raises ValueError when the IR is not what the protobuf defines."""
    from kfp import compiler

    compiler.Compiler().compile(pipeline_named(name), str(out))
    check_ir(out)
    return out


def check_ir(path: Path) -> None:
    """Raises ValueError when a field of the IR is unknown to the pipeline-spec protobuf."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    document = next(iter(yaml.safe_load_all(path.read_text())))
    try:
        json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(document["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    except json_format.ParseError as error:
        raise ValueError(f"{path} is not a pipeline specification: {error}") from error
