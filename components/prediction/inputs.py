"""What is predicted on, in chunks: pictures of a folder, an archive or a list, one picture, or frames of a video."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from components.storage import address
from curation.images import Image, Reject, decode, read_header
from curation.images.fetch_policy import FetchPolicy
from curation.images.items import SourceItem
from curation.images.places import Place, PoolFile
from curation.images.reading import read_all
from curation.images.reasons import Reason
from curation.images.sources import list_pool
from curation.images.video import FrameReader, Video, is_video, open_video

CHUNK = 32
"""Pictures that a worker takes at a time: their persons share batches."""
ANSWERS = ("data", "overlays", "records", "overlay.mp4", "predictions.json", "predictions.parquet")
"""What lies in the folder of the answers."""
_LISTS = (".parquet", ".tar", ".txt", ".csv", ".tsv")
_PART, _STEM = 200, 800
"""Bytes of a folder's or file's name, of which disks take 255, and of a whole path, of which S3 takes 1024; what is
written adds endings, a folder and the root."""
_KEPT = 0.75  # of a name that is too long


@dataclass(frozen=True)
class Picture:
    """A picture by the name that its user knows, and `stem`, the name of its files without their ending."""

    name: str
    stem: str
    item: SourceItem | None = None
    frame: int = -1  # of the chunk's video


@dataclass(frozen=True)
class Chunk:
    """Pictures that are read one after the other."""

    pictures: tuple[Picture, ...]
    video: Video | None = None
    content: str = ""  # sha256 of the video


@dataclass(frozen=True)
class Inputs:
    """All chunks in order, the video they come from, if it is one, and what is to be said of what was left out."""

    chunks: tuple[Chunk, ...]
    video: Video | None = None
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of all pictures in order."""
        return [picture.name for chunk in self.chunks for picture in chunk.pictures]


@dataclass(frozen=True)
class Opened:
    """A picture that was opened: its pixels uint8 [H, W, 3] or why not; neither where it was not due."""

    picture: Picture
    content: str  # sha256 of its bytes, for a frame of the video's and its number
    pixels: Any = None
    reject: Reject | None = None


def list_inputs(images: str, out: str | None = None) -> Inputs:
    """The pictures of a folder, .tar, .parquet, list of URLs, picture or video, local or s3:// (no videos there).

    out: where the answers go; whatever lies in it is no input, so that a rerun does not predict on its own answers.
    Links to folders are not followed, for they may lead round in a circle or to the same pictures again.
    Raises ValueError when nothing is there, it is none of these, or it is `out` itself or a part of its answers.
    """
    place = Place.of(images)
    if out is not None:
        _refuse_answers(images, out)
    if not place.is_directory():
        file = place.as_file()
        if is_video(file.name):
            return _video(file)
        if not file.name.lower().endswith(_LISTS):
            return _pictures([SourceItem.file(file, file.sha256())])
    listing = list_pool(images, rows_per_partition=1 << 30, bytes_per_partition=1 << 62, fetch_epoch=0)
    items = [item for partition in listing.partitions for item in partition.items]
    if out is not None:
        folder = _location(out)
        items = [item for item in items if not _in(item.location, folder)]
    if not items:
        raise ValueError(f"all of {images} lies in {out}, where the answers go: give another folder with --out")
    linked = [item.source for item in items if _is_folder(item)]
    items = [item for item in items if not _is_folder(item)]
    if not items:
        raise ValueError(f"{images} holds only links to folders, which are not followed: give the folders themselves")
    return replace(_pictures(items), notes=_left_out(linked))


def _is_folder(item: SourceItem) -> bool:
    return item.kind == "file" and not item.location.startswith("s3://") and Path(item.location).is_dir()


def _left_out(linked: Sequence[str]) -> tuple[str, ...]:
    if not linked:
        return ()
    shown = ", ".join(linked[:5]) + (f" and {len(linked) - 5} more" if len(linked) > 5 else "")
    return (f"{len(linked)} links to folders are not followed, give these with --images: {shown}",)


def _refuse_answers(images: str, out: str) -> None:
    """Raises ValueError where what is written below `out` would be predicted on, or take the place of a picture."""
    where, folder = _location(images), _location(out)
    if where == folder or any(_in(where, f"{folder.rstrip('/')}/{name}") for name in ANSWERS):
        raise ValueError(
            f"the pictures {images} lie where the answers are written, {out}: give another folder with --out; "
            "it may lie below that of the pictures, it is then left out"
        )


def _location(path: str) -> str:
    uri, local = address(path)
    return str(Path(uri).resolve()) if local else uri


def _in(location: str, folder: str) -> bool:
    return location == folder or location.startswith(folder.rstrip("/") + "/")


def _video(file: PoolFile) -> Inputs:
    if file.location.startswith("s3://"):
        raise ValueError(f"{file.location} is a video: copy it to this machine, videos are read from local files only")
    video = open_video(file.location)
    width = max(6, len(str(video.frames - 1)))
    frames = [Picture(f"frame {n}", f"frame_{n:0{width}}", frame=n) for n in range(video.frames)]
    digest = file.sha256()  # reads the whole file
    return Inputs(tuple(Chunk(part, video, digest) for part in _parts(frames)), video)


def _pictures(items: Sequence[SourceItem]) -> Inputs:
    stems = _stems([item.source for item in items])
    pictures = [Picture(item.source, stem, item) for item, stem in zip(items, stems, strict=True)]
    return Inputs(tuple(Chunk(part) for part in _parts(pictures)))


def _parts(pictures: Sequence[Picture]) -> Iterator[tuple[Picture, ...]]:
    for start in range(0, len(pictures), CHUNK):
        yield tuple(pictures[start : start + CHUNK])


def _stems(names: Sequence[str]) -> list[str]:
    """A path for each name, no two alike: without its ending where that tells it apart, numbered where nothing does.

    A name of plain characters has its path before those that become like it.
    """
    safe = [_safe(name) for name in names]
    short = [re.sub(r"\.[A-Za-z0-9]{1,5}$", "", name) for name in safe]
    counted = Counter(short)
    tries: dict[str, Iterator[int]] = {}
    taken: dict[str, int] = {}
    for k in sorted(range(len(names)), key=lambda k: safe[k] != names[k].replace("::", "/")):
        wanted = short[k] if counted[short[k]] == 1 and short[k].rpartition("/")[2] else safe[k]
        stem = wanted
        while stem in taken:
            stem = f"{wanted}-{next(tries.setdefault(wanted, count(2)))}"
        taken[stem] = k
    return sorted(taken, key=taken.__getitem__)


def _safe(name: str) -> str:
    """A name as a relative path of plain characters; members of an archive lie in a folder of its name."""
    parts = [part for part in name.replace("::", "/").split("/") if part]
    plain = [_cut(re.sub(r"[^\w.\-]+", "_", part).lstrip(".") or "_", part, _PART) for part in parts]
    return _cut("/".join(plain) or "_", name, _STEM)


def _cut(plain: str, name: str, most: int) -> str:
    """At most that many bytes; what is cut off is told apart by a hash of the name."""
    data = plain.encode()
    if len(data) <= most:
        return plain
    kept = data[: int(most * _KEPT)].decode(errors="ignore").rstrip("/")  # no half of a character
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def open_chunk(chunk: Chunk, due: Callable[[Picture, str], bool], reader: FrameReader) -> Iterator[Opened]:
    """Every picture of a chunk in order; those that are not due by their content are not decoded.

    reader: of frames; chunks that share it are read by one pass through the video.
    """
    if chunk.video is not None:
        yield from _frames(chunk, due, reader)
        return
    items = [picture.item for picture in chunk.pictures if picture.item is not None]
    for picture, (_, data) in zip(chunk.pictures, read_all(items, FetchPolicy()), strict=True):
        if isinstance(data, Reject):
            yield Opened(picture, "", reject=data)
            continue
        content = hashlib.sha256(data).hexdigest()
        yield _decoded(picture, content, data) if due(picture, content) else Opened(picture, content)


def _decoded(picture: Picture, content: str, data: bytes) -> Opened:
    if is_video(picture.name) and isinstance(read_header(data), Reject):
        return Opened(picture, content, reject=Reject(Reason.UNSUPPORTED, "a video among pictures: give it by itself"))
    image = decode(data)
    if isinstance(image, Image):
        return Opened(picture, content, image.pixels)
    return Opened(picture, content, reject=image)


def _frames(chunk: Chunk, due: Callable[[Picture, str], bool], reader: FrameReader) -> Iterator[Opened]:
    assert chunk.video is not None
    contents = [f"{chunk.content}:{picture.frame}" for picture in chunk.pictures]
    wanted = [due(picture, content) for picture, content in zip(chunk.pictures, contents)]
    if not any(wanted):
        yield from (Opened(picture, content) for picture, content in zip(chunk.pictures, contents))
        return
    frames = reader.read(chunk.video, chunk.pictures[0].frame, len(chunk.pictures))
    for picture, content, is_due, (number, pixels) in zip(chunk.pictures, contents, wanted, frames, strict=True):
        assert number == picture.frame
        if not is_due:
            yield Opened(picture, content)
        elif isinstance(pixels, Reject):
            yield Opened(picture, content, reject=pixels)
        else:
            yield Opened(picture, content, pixels)
