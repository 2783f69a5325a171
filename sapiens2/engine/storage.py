"""Files under a local path or an s3:// URI, through pyarrow.fs: whole reads, atomic writes, listings.

S3 is configured by its environment variables only (AWS_ENDPOINT_URL, keys, region).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from pyarrow import fs

from sapiens2.engine.patient_s3 import located

_BLOCK = 1 << 22  # bytes per read when a file is copied or hashed


def is_remote(uri: str) -> bool:
    """Whether `uri` names an object store and not a local path."""
    return "://" in uri and not uri.startswith("file://")


def join(uri: str, *names: str) -> str:
    """`uri` with path components appended."""
    return "/".join([uri.rstrip("/"), *names])


def local_path(uri: str) -> Path:
    """The absolute local path behind `uri` (a plain path or file://)."""
    assert not is_remote(uri), uri
    return Path(uri.removeprefix("file://")).absolute()


def locate(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system that holds `uri`, and the path inside it."""
    if not is_remote(uri):
        return fs.LocalFileSystem(), str(local_path(uri))
    return located(uri)


def read_bytes(uri: str) -> bytes:
    """The whole file; FileNotFoundError if it is not there."""
    system, path = locate(uri)
    with system.open_input_stream(path) as stream:
        return bytes(stream.read())


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file so that it is either absent, old, or complete and durable."""
    if is_remote(uri):
        system, path = locate(uri)
        with system.open_output_stream(path) as stream:
            stream.write(data)
        return
    target = local_path(uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)


def upload(source: Path, uri: str) -> None:
    """Copy a local file to `uri`, in blocks; atomic as `write_bytes`."""
    if not is_remote(uri):
        target = local_path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        shutil.copyfile(source, partial)
        partial.replace(target)
        return
    system, path = locate(uri)
    with source.open("rb") as file, system.open_output_stream(path) as stream:
        while block := file.read(_BLOCK):
            stream.write(block)


def download(uri: str, target: Path) -> None:
    """Copy the file at `uri` to a local path, in blocks."""
    system, path = locate(uri)
    with system.open_input_stream(path) as stream, target.open("wb") as file:
        while block := stream.read(_BLOCK):
            file.write(block)


def fingerprint(uri: str) -> tuple[int, str]:
    """Size in bytes and sha256 of the file at `uri`."""
    system, path = locate(uri)
    digest, size = hashlib.sha256(), 0
    with system.open_input_stream(path) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def exists(uri: str) -> bool:
    """Whether a file lies at `uri`."""
    system, path = locate(uri)
    return system.get_file_info(path).type == fs.FileType.File


def folders(uri: str) -> list[str]:
    """Names of the folders directly below `uri`; empty if it does not exist."""
    system, path = locate(uri)
    found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)


def delete_file(uri: str) -> None:
    """Delete one file; a missing one is no error."""
    if exists(uri):
        system, path = locate(uri)
        system.delete_file(path)


def delete_folder(uri: str) -> None:
    """Delete a folder and all in it; a missing one is no error."""
    system, path = locate(uri)
    if system.get_file_info(path).type == fs.FileType.Directory:
        system.delete_dir(path)
