"""Which pictures and sources of a root a path, a URL, a source's name or the start of an id means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.artifacts import Artifact, ArtifactError, Store, read_parquet
from components.picture_index import SOURCES, PictureIndex
from components.removals import removals
from components.row_finder import RowFinder, value_set

ID_DIGITS = 32


def resolve_image(store: Store, reference: str) -> tuple[set[str], set[str]]:
    """(image ids, source ids) that a path, URL, source name or id prefix means.

    A file that exists is known by its bytes; else by its source name or the end of it. Raises ArtifactError.
    """
    ids, sources, _ = resolved(store, reference, list(store.all("images")))
    return ids, sources


def resolved(
    store: Store, reference: str, images: Sequence[Artifact], index: PictureIndex | None = None
) -> tuple[set[str], set[str], set[str]]:
    """Image ids, source ids, and those of the sources that a version rejected."""
    path = Path(reference).expanduser()
    if not images:
        raise ArtifactError(f"there is no `images` artifact under {store.root}: nothing was ingested yet")
    by_bytes = path.is_file()
    wanted = {_image_id(path)} if by_bytes else set()
    files = {entry.sha256: entry.path for artifact in images for entry in artifact.manifest.files_of(SOURCES)}
    found = _meant(store, files, reference, wanted, by_bytes, index)
    ids = {row["image_id"] for row in found if row["image_id"]}
    sources = {row["source_id"] for row in found}
    rejected = {row["source_id"] for row in found if row["reason"]}
    if wanted:  # a file that was rejected is known by its bytes too
        finder = RowFinder(index, image_id=wanted)
        for artifact in images:
            rejected |= {row["source_id"] for row in finder.rows(artifact, "rejects", "image_id", ["source_id"])}
        sources |= rejected
    if not sources:
        _say_removed(store, reference, wanted or {reference.lower()})
        raise ArtifactError(
            f"{reference!r} is no picture that was ingested under {store.root}: give its path, its URL, or at least "
            "six digits of its id"
        )
    return ids, sources, rejected


def _say_removed(store: Store, reference: str, digits: set[str]) -> None:
    """Raises ArtifactError for a picture, by the start of its id or its sha256, that was removed on request."""
    for removal in removals(store.storage):
        if any(len(d) >= 6 and i.startswith(d[:ID_DIGITS]) for i in removal.image_ids for d in digits):
            raise ArtifactError(
                f"{reference!r} was removed on request (removal {removal.id}, {removal.time}) and is refused since "
                "then; what is left of it is the reject of its path or address"
            )


def _image_id(path: Path) -> str:
    from curation.tables import image_id

    return image_id(path.read_bytes())


def _meant(
    store: Store,
    files: Mapping[str, str],
    reference: str,
    wanted: set[str],
    by_bytes: bool,
    index: PictureIndex | None,
) -> list[dict[str, Any]]:
    """source_id, image_id and reason of the sources that the reference means; `files` of `sources`: path by sha256.

    Every row of such a source, also of a version that rejected it, which has no image_id.
    """
    indexed = [sha for sha in files if index is not None and index.holds(sha, "source_id")]
    columns = ["source_id", "source", "image_id", "reason"]
    unread = [path for sha, path in files.items() if sha not in set(indexed)]
    tables = store.each(lambda file: read_parquet(store.storage, file, columns, use_threads=False), unread)
    end, prefix = not (by_bytes and Path(reference).is_absolute()), _is_prefix(reference)
    known: set[str] = set()
    if index is not None:
        known |= index.named(reference, indexed, end=end, prefix=prefix, ids=wanted)
    if tables:
        known |= _named(tables, reference, wanted, end=end, prefix=prefix)
    rows = list(index.sources(known, indexed)) if index is not None else []
    return rows + (_rows_of(tables, known) if tables else [])


def _is_prefix(reference: str) -> bool:
    return 6 <= len(reference) <= ID_DIGITS and all(c in "0123456789abcdef" for c in reference)


def _named(tables: Sequence[Any], reference: str, wanted: set[str], *, end: bool, prefix: bool) -> set[str]:
    """The same of tables of sources as PictureIndex.named of files."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.concat_tables(tables)
    source, ids = table["source"], table["image_id"]
    tests = [pc.is_in(source, value_set=value_set([reference])), pc.is_in(ids, value_set=value_set(wanted))]
    if end:
        tests += [pc.ends_with(source, f"/{reference}"), pc.ends_with(source, f"::{reference}")]
    if prefix:
        tests.append(pc.starts_with(ids, reference))
    known = tests[0]
    for test in tests[1:]:
        known = pc.or_kleene(known, test)
    return set(table.filter(pc.fill_null(known, False))["source_id"].to_pylist())


def _rows_of(tables: Sequence[Any], source_ids: set[str]) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.concat_tables(tables).select(["source_id", "image_id", "reason"])
    rows: list[dict[str, Any]] = table.filter(pc.is_in(table["source_id"], value_set=value_set(source_ids))).to_pylist()
    return rows
