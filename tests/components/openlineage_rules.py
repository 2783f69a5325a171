"""What OpenLineage asks of a run event: its own classes (`officially`), and the specification 2-0-2 as a JSON schema.

The classes are those that the project generates from the specification and ships as openlineage-python. The schema is
in our words; the specification's own file is used instead where OPENLINEAGE_SPEC names a folder that holds
OpenLineage.json: the folder `spec` of its repository.
"""

from __future__ import annotations

import inspect
import json
import os
import typing
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker
from openlineage.client import event_v2, facet_v2
from openlineage.client.serde import Serde
from pydantic import TypeAdapter

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


FACETS = {
    name: found
    for module in vars(facet_v2).values()
    if inspect.ismodule(module)
    for name, found in vars(module).items()
    if inspect.isclass(found) and name.endswith("Facet")
}


def officially(event: dict[str, Any]) -> dict[str, Any]:
    """The event as OpenLineage's own classes write it, made from its JSON by them alone.

    Raises ValueError or TypeError for a field that they do not know, that is missing, or of another type.
    """
    return json.loads(Serde.to_json(_made(event_v2.RunEvent, event)))


def _made(kind: type, raw: dict[str, Any]) -> Any:
    """An instance of one of the classes: facets by the name that their schema's URL ends with."""
    hints, given = typing.get_type_hints(kind), {}
    for name, value in raw.items():
        if name not in hints:
            raise TypeError(f"{kind.__name__} has no field {name}")
        inner = [each for each in _leaves(hints[name]) if hasattr(each, "__attrs_attrs__")]
        if not inner:
            given[name] = TypeAdapter(hints[name]).validate_json(json.dumps(value), strict=True)
        elif name.lower().endswith("facets"):
            given[name] = {
                key: _made(FACETS[facet["_schemaURL"].rsplit("/", 1)[-1]], facet) for key, facet in value.items()
            }
        elif isinstance(value, list):
            given[name] = [_made(inner[0], each) for each in value]
        else:
            given[name] = _made(inner[0], value)
    schema = given.pop("_schemaURL", None)
    made = kind(**{name.removeprefix("_"): value for name, value in given.items() if name != "schemaURL"})
    if schema not in (None, getattr(made, "_schemaURL", None)):
        raise ValueError(f"{kind.__name__} is of {made._schemaURL}, not of {schema}")
    return made


def _leaves(hint: Any) -> list[Any]:
    """The classes in a type: of `list[X] | None`, list and X and NoneType."""
    parts = typing.get_args(hint)
    return [leaf for part in parts for leaf in _leaves(part)] if parts else [hint]
