"""Where pools lie: a local path or an s3:// address, listed and read through one small interface."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from pyarrow import fs as arrow_fs

_CHUNK = 1 << 20


@dataclass(frozen=True)
class PoolFile:
    """A file of a pool: its name relative to the pool (posix, always valid UTF-8), where it is, its size in bytes."""

    name: str
    location: str
    size: int

    def open(self) -> IO[bytes]:
        """A seekable binary stream. Raises OSError."""
        return open_location(self.location)

    def sha256(self) -> str:
        """Hex sha256 of the content; empty when it cannot be read: reading it later says why."""
        try:
            with self.open() as stream:
                digest = hashlib.sha256()
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                return digest.hexdigest()
        except OSError:
            return ""


def open_location(location: str) -> IO[bytes]:
    """Opens a local path or s3:// address for reading. Raises OSError, also for what is not a regular file."""
    if location.startswith("s3://"):
        filesystem, path = arrow_fs.FileSystem.from_uri(location)
        return cast(IO[bytes], filesystem.open_input_file(path))
    if not Path(location).is_file():  # a pipe would wait for ever
        raise OSError(f"{location} is not a regular file")
    return open(location, "rb")


@dataclass(frozen=True)
class Place:
    """The root of a pool. `uri` is what the user typed."""

    uri: str

    @classmethod
    def of(cls, pool: str) -> Place:
        """Raises ValueError when nothing is there or the scheme is unknown."""
        if "://" in pool and not pool.startswith("s3://"):
            raise ValueError(f"{pool} has an unknown scheme; give a local path or an s3:// address")
        place = cls(pool.rstrip("/") or pool)
        if place._type() == arrow_fs.FileType.NotFound:
            raise ValueError(f"{pool} does not exist; give an existing folder, archive or list of URLs")
        return place

    def _type(self) -> arrow_fs.FileType:
        if self.uri.startswith("s3://"):
            filesystem, path = arrow_fs.FileSystem.from_uri(self.uri)
            return filesystem.get_file_info(path).type
        kinds = {True: arrow_fs.FileType.Directory, False: arrow_fs.FileType.File}
        return kinds[Path(self.uri).is_dir()] if Path(self.uri).exists() else arrow_fs.FileType.NotFound

    def is_directory(self) -> bool:
        return self._type() == arrow_fs.FileType.Directory

    def as_file(self) -> PoolFile:
        """The pool itself, when it is one file."""
        if self.uri.startswith("s3://"):
            filesystem, path = arrow_fs.FileSystem.from_uri(self.uri)
            return PoolFile(self.uri.rsplit("/", 1)[1], self.uri, filesystem.get_file_info(path).size)
        path = Path(self.uri).resolve()
        return PoolFile(_valid(path.name), str(path), path.stat().st_size)

    def files(self) -> list[PoolFile]:
        """Every file below, recursively, hidden ones too, sorted by name."""
        found = self._s3_files() if self.uri.startswith("s3://") else self._local_files()
        return sorted(found, key=lambda file: file.name)

    def _local_files(self) -> Iterator[PoolFile]:
        root = Path(self.uri).resolve()
        for folder, folders, names in os.walk(root):
            here = Path(folder)
            linked = [name for name in folders if (here / name).is_symlink()]  # a source, but not followed
            for path in (here / name for name in [*names, *linked]):
                size = path.stat().st_size if path.is_file() else 0
                yield PoolFile(_valid(path.relative_to(root).as_posix()), str(path), size)

    def _s3_files(self) -> Iterator[PoolFile]:
        filesystem, path = arrow_fs.FileSystem.from_uri(self.uri)
        selector = arrow_fs.FileSelector(path, recursive=True)
        infos: list[Any] = filesystem.get_file_info(selector)
        for info in infos:
            if info.type == arrow_fs.FileType.File:
                name = info.path[len(path) :].lstrip("/")
                yield PoolFile(name, f"{self.uri}/{name}", info.size)


def _valid(name: str) -> str:
    """A file name as valid UTF-8: bytes that are none are written \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
