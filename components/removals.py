"""The record of pictures that were removed on request: what was asked, whether it is done, who had consumed them.

One file for each request, `<root>/denylist/<id>.json`. From the moment it is written ingest refuses its entries; while
its state is `pending` no step runs, because the pictures may still lie somewhere under the root.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from components.artifacts import ArtifactError
from components.manifest import RECORD
from components.storage import Storage

FOLDER = "denylist"


class Removal(BaseModel):
    """A request and what became of it. Times are ISO 8601 in UTC."""

    model_config = RECORD
    id: str
    asked: list[str]  # image_ids and URLs, as given
    image_ids: list[str]  # asked for, or found by their URLs
    urls: list[str]  # asked for, or from which one of the pictures came
    copies: bool = False  # whether the other pictures of their duplicate groups were asked for too
    state: str = "pending"  # or done
    time: str
    artifacts: list[str] = []  # KIND=VERSION that held rows of them
    consumers: dict[str, list[str]] = {}  # checkpoints that were trained on them: KIND=VERSION -> image_ids

    @property
    def path(self) -> str:
        """Of its file, relative to the root."""
        return f"{FOLDER}/{self.id}.json"


def removal_id(asked: Iterable[str]) -> str:
    """The same for the same request, whatever its order: repeating a command continues it."""
    return hashlib.sha256("\n".join(sorted(asked)).encode()).hexdigest()[:12]


def write(storage: Storage, removal: Removal) -> None:
    """Write or replace a record."""
    storage.write(removal.path, (json.dumps(removal.model_dump(), indent=1) + "\n").encode())


def removals(storage: Storage) -> Iterator[Removal]:
    """Every record, by id. Raises ArtifactError for a damaged one."""
    for path, is_file, _, _ in storage.list(FOLDER):
        if is_file and re.fullmatch(rf"{FOLDER}/[0-9a-f]{{12}}\.json", path):
            try:
                yield Removal.model_validate(json.loads(storage.read(path)))
            except ValueError as error:
                raise ArtifactError(
                    f"the record {storage.full(path)} of a removal is damaged; restore it, or repeat that removal"
                ) from error


def root_denylist(storage: Storage) -> Any:
    """What was removed from this root, as a curation.images.denylist.Denylist."""
    from curation.images.denylist import Denylist

    known = list(removals(storage))
    ids = frozenset(i for removal in known for i in removal.image_ids)
    return Denylist({"id": ids} if ids else {}, urls=frozenset(u for removal in known for u in removal.urls))


def refuse_pending(storage: Storage) -> None:
    """Raises ArtifactError while a removal is not finished."""
    for removal in removals(storage):
        if removal.state != "done":
            raise ArtifactError(
                f"the removal {removal.id} of {len(removal.image_ids)} pictures was interrupted; finish it with "
                "`sapiens2 artifacts forget --resume`"
            )
