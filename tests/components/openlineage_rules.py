"""What OpenLineage asks of a run event (specification 2-0-2, in our words), as a JSON schema.

The specification's own file is used instead where OPENLINEAGE_SPEC names a folder that holds OpenLineage.json: the
folder `spec` of its repository.
"""

from __future__ import annotations

import json
import os
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker

TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
URI = {"type": "string", "format": "uri"}


def record(required: dict[str, Any], optional: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """An object with these properties."""
    return {"type": "object", "required": list(required), "properties": required | (optional or {}), **more}


def facets(own: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A map of facets: each says who made it and by which schema; those we use have their own fields besides."""
    base = {"_producer": URI, "_schemaURL": URI}
    known = {name: record(base | fields) for name, fields in own.items()}
    return {"type": "object", "properties": known, "additionalProperties": record(base)}


COLUMN = record({"name": TEXT}, {"type": TEXT, "description": TEXT})
DATASET = facets({"version": {"datasetVersion": TEXT}, "schema": {"fields": {"type": "array", "items": COLUMN}}})
ERROR = {"message": TEXT, "programmingLanguage": TEXT}
STATISTICS = {"rowCount": COUNT, "size": COUNT, "fileCount": COUNT}
NAMED = {"namespace": {"type": "string", "minLength": 1}, "name": {"type": "string", "minLength": 1}}
RUN_EVENT = record(
    {
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": URI,
        "schemaURL": URI,
        "run": record({"runId": {"type": "string", "format": "uuid"}}, {"facets": facets({"errorMessage": ERROR})}),
        "job": record(NAMED, {"facets": facets({})}),
    },
    {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "inputs": {"type": "array", "items": record(NAMED, {"facets": DATASET, "inputFacets": facets({})})},
        "outputs": {
            "type": "array",
            "items": record(NAMED, {"facets": DATASET, "outputFacets": facets({"outputStatistics": STATISTICS})}),
        },
    },
)

formats = FormatChecker(formats=())


@formats.checks("date-time", raises=ValueError)
def _instant(value: object) -> bool:
    return datetime.fromisoformat(str(value)).tzinfo is not None


@formats.checks("uri")
def _uri(value: object) -> bool:
    return bool(urlsplit(str(value)).scheme)


@formats.checks("uuid", raises=ValueError)
def _uuid(value: object) -> bool:
    return bool(uuid.UUID(str(value)))


def problems(event: dict[str, Any]) -> list[str]:
    """What is wrong with an event, a line each."""
    schema = RUN_EVENT
    if folder := os.environ.get("OPENLINEAGE_SPEC"):
        schema = json.loads((Path(folder) / "OpenLineage.json").read_text())
    found = Draft202012Validator(schema, format_checker=formats).iter_errors(event)
    return [f"{error.json_path}: {error.message}" for error in found]
