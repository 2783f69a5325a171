"""One root, local or S3 alike: whole files in, whole files out, through pyarrow.fs."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.fs as pafs

from components.storage_probe import explained, unreachable, unwritable
from sapiens2.engine.patient_s3 import located

SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
WITH_KEYS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/]*@|.*[?&](secret_key|access_key)=", re.IGNORECASE)


class StorageError(ValueError):
    """The root cannot be used; the message says why and what to do."""


def out_of_reach(error: BaseException) -> bool:
    """Whether an object store failed, after all patience: what comes next there would fail as slowly."""
    return isinstance(error, OSError) and "AWS Error" in str(error)


def of_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, says that a disk is full."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


class Storage:
    """Files below one root. Paths are relative, with forward slashes.

    A write is seen whole or not at all: S3 puts are atomic, and a local file is renamed into place.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        text = os.fspath(root)
        if WITH_KEYS.match(text):
            raise StorageError(
                "keys do not belong into the root's address, which is written down in many places: "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and write s3://bucket/prefix"
            )
        self.local = not SCHEME.match(text) or text.startswith("file://")
        if self.local:
            base = Path(text.removeprefix("file://")).expanduser().absolute()
            self.uri, self._base = str(base), str(base)
            self.fs: Any = pafs.LocalFileSystem()
        else:
            try:
                self.fs, self._base = located(text)
            except OSError as error:  # Amazon does not tell the bucket's region
                raise StorageError(explained(text, error)) from error
            self.uri = text.rstrip("/")

    def path(self, relative: str) -> str:
        """The path of `relative` inside `self.fs`."""
        return f"{self._base}/{relative}" if relative else self._base

    def full(self, relative: str) -> str:
        """The absolute path or URI of `relative`: what another process can open."""
        return f"{self.uri}/{relative}" if relative else self.uri

    def reach(self) -> None:
        """Raises StorageError, within seconds, when the bucket of a root in an object store does not answer."""
        if not self.local and (trouble := unreachable(self.uri)):
            raise StorageError(trouble)

    def ensure_writable(self) -> None:
        """Raises StorageError when nothing can be written below the root."""
        if not self.local:
            if trouble := unreachable(self.uri) or unwritable(self.uri):
                raise StorageError(trouble)
            return
        probe = Path(self.path(f".probe-{uuid.uuid4().hex[:8]}"))
        try:
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StorageError(
                f"the root {self.uri} cannot be written ({type(error).__name__}: {str(error)[:200]}); "
                "choose another with --root or SAPIENS2_ROOT, or mend its permissions"
            ) from error

    def write(self, relative: str, data: bytes) -> None:
        """Write a whole file, atomically."""
        if self.local:
            target = Path(self.path(relative))
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
            temporary.write_bytes(data)
            temporary.replace(target)
            return
        with self.fs.open_output_stream(self.path(relative)) as stream:
            stream.write(data)

    def read(self, relative: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError."""
        if self.local:
            return Path(self.path(relative)).read_bytes()
        with self.fs.open_input_file(self.path(relative)) as stream:
            return bytes(stream.read())

    def exists(self, relative: str) -> bool:
        """Whether a file of that name is there."""
        return bool(self.fs.get_file_info(self.path(relative)).type == pafs.FileType.File)

    def size(self, relative: str) -> int:
        """Bytes of a file, or -1 when it is not there."""
        info = self.fs.get_file_info(self.path(relative))
        return int(info.size) if info.type == pafs.FileType.File else -1

    def list(self, relative: str, *, recursive: bool = False) -> Iterator[tuple[str, bool, int, float]]:
        """(relative path, is a file, bytes, modified seconds) below a folder, sorted; nothing when it is absent."""
        selector = pafs.FileSelector(self.path(relative), allow_not_found=True, recursive=recursive)
        for info in sorted(self.fs.get_file_info(selector), key=lambda info: info.path):
            name = str(PurePosixPath(info.path).relative_to(self._base))
            modified = info.mtime.timestamp() if info.mtime else 0.0
            yield name, info.type == pafs.FileType.File, int(info.size or 0), modified

    def delete(self, relative: str) -> None:
        """Delete a file."""
        self.fs.delete_file(self.path(relative))

    def delete_folder(self, relative: str) -> None:
        """Delete a folder and what is in it; nothing when it is absent."""
        if self.fs.get_file_info(self.path(relative)).type == pafs.FileType.Directory:
            self.fs.delete_dir(self.path(relative))
