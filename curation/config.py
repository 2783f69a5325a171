"""What every stage configuration is made of: frozen pydantic models whose fields say what they may change.

A *recipe* field changes what a stage means, so it enters the version of the artifact; an *execution* field (worker
counts, batch sizes, endpoints) changes only how fast or where it runs, and never does.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Base of every stage configuration: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def recipe(default: Any, description: str, **constraints: Any) -> Any:
    """A field that is part of the recipe; `description` states its unit."""
    return Field(default, description=description, json_schema_extra={"role": "recipe"}, **constraints)


def execution(default: Any, description: str, **constraints: Any) -> Any:
    """A field that changes speed or place, never the result."""
    return Field(default, description=description, json_schema_extra={"role": "execution"}, **constraints)
