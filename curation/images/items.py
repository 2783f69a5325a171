"""One source of a pool: what it is called, where its bytes are, and what the list said about it."""

from __future__ import annotations

from dataclasses import dataclass

from curation.images.places import PoolFile


@dataclass(frozen=True, order=True)
class Span:
    """A byte range of a file: a member of an uncompressed archive."""

    offset: int
    size: int


@dataclass(frozen=True)
class SourceItem:
    """A source, small and picklable. `location` is a path or URI and enters neither names nor digests.

    kind: `file` (all of location), `span` (a byte range of it), `row` (a row of a Parquet file), `url` (to be fetched).
    """

    source: str
    kind: str
    location: str
    n_bytes: int = 0  # as far as the listing knows
    sha256: str = ""  # of the file, so that a change between listing and reading is noticed
    span: Span | None = None
    sidecars: tuple[tuple[str, Span], ...] = ()  # (extension, range): captions and metadata beside an archive member
    row: tuple[int, int] = (0, 0)  # row group, row in it
    caption: str | None = None
    licence: str | None = None
    extra: str | None = None  # a JSON object

    @classmethod
    def file(cls, file: PoolFile, sha256: str) -> SourceItem:
        """The source that a whole file is."""
        return cls(file.name, "file", file.location, file.size, sha256)
