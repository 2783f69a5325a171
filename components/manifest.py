"""The manifest: what an artifact is, what made it, and which files belong to it."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MANIFEST_VERSION = 1
MANIFEST = "manifest.json"
RECORD = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # built when a manifest is first read


class InputRef(BaseModel):
    """An artifact that a step read, and in which role."""

    model_config = RECORD
    role: str
    kind: str
    version: str


class FileEntry(BaseModel):
    """One file of an artifact; `path` is relative to the root, so it may lie in another version."""

    model_config = RECORD
    path: str
    table: str | None = Field(None, description="the table that its rows belong to; null for a loose file")
    partition: str | None = None
    bytes: int
    rows: int | None = None
    sha256: str


class ModelRef(BaseModel):
    """A third-party network whose outputs went into the artifact."""

    model_config = RECORD
    name: str
    revision: str
    sha256: str
    licence: str


class CodeRef(BaseModel):
    """The code that ran: package version, git commit and whether the tree had changes."""

    model_config = RECORD
    package_version: str
    git_commit: str | None = None
    dirty: bool | None = None


class Manifest(BaseModel):
    """The record whose presence is the commit of an artifact. Times are ISO 8601 in UTC."""

    model_config = RECORD
    manifest_version: int = MANIFEST_VERSION
    kind: str
    version: str
    digest: str | None = Field(None, description="64 hex digits; null for cards and reports")
    step: str
    revision: int = 1
    config: dict[str, Any]
    recipe: dict[str, Any] = Field(default_factory=dict, description="the part of the config that made the version")
    inputs: list[InputRef] = []
    source: str | None = Field(None, description="digest of what lay outside the store, for ingest")
    files: list[FileEntry] = []
    tables: dict[str, dict[str, str]] = Field(default_factory=dict, description="column types by table")
    metrics: dict[str, Any] = {}
    models: list[ModelRef] = []
    code: CodeRef
    environment: dict[str, str] = {}
    seed: int | None = None
    start: str
    end: str
    redacted: list[str] = Field(default_factory=list, description="image ids that were removed later, on request")

    def dump(self) -> bytes:
        """Indented JSON, as it lies under the root."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes, where: str) -> Manifest:
        """Raises ValueError naming the file, when it is damaged or written by a newer version."""
        try:
            found = cls.model_validate_json(data)
            if found.manifest_version <= MANIFEST_VERSION:
                return found
        except ValidationError:
            pass  # damaged, or from a newer version: which of them is said below
        try:
            raw = json.loads(data)
            if int(raw["manifest_version"]) > MANIFEST_VERSION:
                raise ValueError(
                    f"{where} has manifest_version {raw['manifest_version']}; this code reads up to "
                    f"{MANIFEST_VERSION}: update the package"
                )
            return cls.model_validate(raw)
        except (json.JSONDecodeError, UnicodeDecodeError, ValidationError, KeyError, TypeError) as error:
            raise ValueError(
                f"the manifest {where} is damaged ({type(error).__name__}); restore it, or delete that version's "
                "folder so that the step runs again"
            ) from error

    def files_of(self, table: str) -> list[FileEntry]:
        """The files that hold the rows of `table`, in partition order."""
        return [entry for entry in self.files if entry.table == table]
