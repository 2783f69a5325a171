"""One root, local or S3 alike: whole files in, whole files out, through pyarrow.fs."""

from __future__ import annotations

import builtins
import errno
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
AT_ONCE = 32  # questions to S3
_ONE_CLIENT = threading.Lock()  # held while a client is made, which threads must not do at once
SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
WITH_KEYS = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/]*@|.*[?&](secret_key|access_key)=", re.IGNORECASE)


def existing(path: str) -> Path:
    """The path, or as much of it as is there."""
    found = Path(path)
    while not found.exists() and found != found.parent:
        found = found.parent
    return found


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


def address(root: str | os.PathLike[str]) -> tuple[str, bool]:
    """The root as it is written down, and whether it is a folder; asks no object store.

    Raises StorageError for keys in it.
    """
    text = os.fspath(root)
    if WITH_KEYS.match(text):
        raise StorageError(
            "keys do not belong into the root's address, which is written down in many places: "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and write s3://bucket/prefix"
        )
    if SCHEME.match(text) and not text.startswith("file://"):
        return text.rstrip("/"), False
    return str(Path(text.removeprefix("file://")).expanduser().absolute()), True


class Storage:
    """Files below one root. Paths are relative, with forward slashes.

    A write is seen whole or not at all: S3 puts are atomic, and a local file is renamed into place. Looking at a local
    root loads no pyarrow, which takes longer than most questions.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.uri, self.local = address(root)
        if self.local:
            self._base = self.uri
        else:
            from sapiens2.engine.patient_s3 import located

            text = os.fspath(root)
            try:
                self._remote, self._base = located(text)
            except OSError as error:  # Amazon does not tell the bucket's region
                from components.storage_probe import explained

                raise StorageError(explained(text, error)) from error

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_s3"}

    @cached_property
    def fs(self) -> Any:
        """The file system, as pyarrow has it."""
        if not self.local:
            return self._remote
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem()

    def path(self, relative: str) -> str:
        """The path of `relative` inside `self.fs`."""
        return f"{self._base}/{relative}" if relative else self._base

    def full(self, relative: str) -> str:
        """The absolute path or URI of `relative`: what another process can open."""
        return f"{self.uri}/{relative}" if relative else self.uri

    def reach(self) -> None:
        """Raises StorageError, within seconds, when the bucket of a root in an object store does not answer."""
        if self.local:
            return
        from components.storage_probe import unreachable

        if trouble := unreachable(self.uri):
            raise StorageError(trouble)

    def ensure_writable(self) -> None:
        """Raises StorageError when nothing can be written below the root. Makes no folder."""
        if not self.local:
            from components.storage_probe import unreachable, unwritable

            if trouble := unreachable(self.uri) or unwritable(self.uri):
                raise StorageError(trouble)
            return
        try:
            probe = existing(self.uri) / f".probe-{uuid.uuid4().hex[:8]}"
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
            with open(self.path(relative), "rb") as file:  # pathlib takes longer than small files
                return file.read()
        with self.fs.open_input_file(self.path(relative)) as stream:
            return bytes(stream.read())

    def read_once(self, relative: str) -> bytes:
        """The bytes of a small file: from S3 by one request, where pyarrow asks for the size first.

        Raises FileNotFoundError.
        """
        return self.read_with_etag(relative)[0]

    def read_with_etag(self, relative: str) -> tuple[bytes, str]:
        """The bytes of a small file and the ETag by which S3 tells these bytes from others; "" where there is none.

        Raises FileNotFoundError.
        """
        client = self.client
        if client is None:
            return self.read(relative), ""
        bucket, _, key = self.path(relative).partition("/")
        try:
            answer = client.get_object(Bucket=bucket, Key=key)
            return bytes(answer["Body"].read()), answer["ETag"]
        except client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(self.full(relative)) from error
        except Exception:  # whatever it is, `read` is patient with it and says it as everywhere
            return self.read(relative), ""

    @property
    def client(self) -> Any:
        """A boto3 client of the S3 of this root; None where it is none, or its URI has options only pyarrow knows."""
        if not self.uri.startswith("s3://") or "?" in self.uri:
            return None
        with _ONE_CLIENT:
            return self._s3

    @cached_property
    def _s3(self) -> Any:
        import boto3
        from botocore.config import Config

        from sapiens2.engine.patient_s3 import endpoint_url

        style = {"addressing_style": "path" if endpoint_url() else "auto"}
        config = Config(max_pool_connections=AT_ONCE, s3=style, retries={"mode": "standard"})
        return boto3.Session().client(
            "s3", region_name=self.fs.region, endpoint_url=endpoint_url() or None, config=config
        )

    def exists(self, relative: str) -> bool:
        """Whether a file of that name is there."""
        if self.local:
            return Path(self.path(relative)).is_file()
        return self.size(relative) >= 0

    def size(self, relative: str) -> int:
        """Bytes of a file, or -1 when it is not there."""
        from pyarrow.fs import FileType

        info = self.fs.get_file_info(self.path(relative))
        return int(info.size) if info.type == FileType.File else -1

    def list(self, relative: str, *, recursive: bool = False) -> Iterator[tuple[str, bool, int, float]]:
        """(relative path, is a file, bytes, modified seconds) below a folder, sorted; nothing when it is absent."""
        for path, is_file, size, modified in sorted(self._listed(self.path(relative), recursive)):
            yield path.removeprefix(self._base).lstrip("/"), is_file, size, modified

    def _listed(self, folder: str, recursive: bool) -> Iterator[tuple[str, bool, int, float]]:
        if self.local:
            yield from _walk(folder, recursive)
            return
        from pyarrow.fs import FileSelector, FileType

        for info in self.fs.get_file_info(FileSelector(folder, allow_not_found=True, recursive=recursive)):
            modified = info.mtime.timestamp() if info.mtime else 0.0
            yield info.path, info.type == FileType.File, int(info.size or 0), modified

    def each(self, ask: Callable[[Asked], Answer], things: Sequence[Asked]) -> builtins.list[Answer]:
        """The answers in order; from S3 many at a time, for there the way is what takes long."""
        if self.local or len(things) < 2:
            return [ask(thing) for thing in things]
        with ThreadPoolExecutor(min(AT_ONCE, len(things))) as pool:
            return list(pool.map(ask, things))

    def delete(self, relative: str) -> None:
        """Delete a file."""
        self.fs.delete_file(self.path(relative))

    def delete_folder(self, relative: str) -> None:
        """Delete a folder and what is in it; nothing when it is absent."""
        import pyarrow.fs as pafs

        if self.fs.get_file_info(self.path(relative)).type == pafs.FileType.Directory:
            self.fs.delete_dir(self.path(relative))


def _walk(folder: str, recursive: bool) -> Iterator[tuple[str, bool, int, float]]:
    """What lies in a local folder; what goes while it is listed is left out, as from a listing a moment later."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        try:
            found = entry.stat()
        except FileNotFoundError:
            continue
        yield entry.path, entry.is_file(), found.st_size, found.st_mtime
        if recursive and entry.is_dir():
            yield from _walk(entry.path, recursive)
