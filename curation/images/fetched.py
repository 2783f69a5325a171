"""What was fetched of a list, by URL; bodies wait on disk when they are many, so a partition's memory stays bounded."""

from __future__ import annotations

import tempfile
from types import TracebackType

from curation.images.items import Span
from curation.images.reasons import Reject

IN_MEMORY_BYTES = 128 << 20


class Fetched:
    """Outcomes by URL. A context manager: what lies on disk is gone when it is left."""

    def __init__(self, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._bodies = tempfile.SpooledTemporaryFile(max_size=in_memory_bytes)  # noqa: SIM115 closed by __exit__
        self._places: dict[str, Span | Reject] = {}
        self._end = 0

    def __enter__(self) -> Fetched:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bodies.close()

    def __setitem__(self, url: str, outcome: bytes | Reject) -> None:
        if isinstance(outcome, Reject):
            self._places[url] = outcome
            return
        self._bodies.seek(self._end)
        self._bodies.write(outcome)
        self._places[url] = Span(self._end, len(outcome))
        self._end += len(outcome)

    def __getitem__(self, url: str) -> bytes | Reject:
        place = self._places[url]
        if isinstance(place, Reject):
            return place
        self._bodies.seek(place.offset)
        return self._bodies.read(place.size)
