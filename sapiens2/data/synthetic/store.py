"""Rendered scenes, kept in memory up to a limit and on disk, so that tasks and runs share the rendering.

Scenes are stored in blocks, one file per block, keyed by everything that decides their pixels. Labels are packed
(normals and albedo in 16 and 8 bits), and a fresh scene goes through the same packing, so both give the same numbers.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from sapiens2.data.synthetic.scene import REVISION, Scene, render

Array = np.ndarray
BLOCK = 16
MAPS = ("normals", "points", "albedo")
"""Labels that take longest to unpack."""
MEMORY_BYTES = 512 << 20
_LOG = logging.getLogger(__name__)
_SHORT = 32767


def cache_folder() -> Path:
    """Where scenes are kept: `$SAPIENS2_CACHE` or ~/.cache/sapiens2, folder `scenes`."""
    root = os.environ.get("SAPIENS2_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "sapiens2") / "scenes"


class SceneStore:
    """`count` scenes of one split; the scene of index i has seed `first_seed + i`."""

    def __init__(
        self,
        count: int,
        height: int,
        width: int,
        split: str,
        first_seed: int = 0,
        *,
        folder: Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """folder: where blocks are kept, None for memory only; memory_bytes: beyond it the blocks used last stay."""
        self.count, self.height, self.width, self.split, self.first_seed = count, height, width, split, first_seed
        self.folder, self.memory_bytes = folder, memory_bytes
        self.rendered = 0
        self._blocks: OrderedDict[int, dict[str, Array]] = OrderedDict()
        self._held = 0

    def scene(self, index: int, maps: Collection[str] = MAPS) -> Scene:
        """The scene of an index in [0, count); of the labels in MAPS, those that are not asked for are empty."""
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        block, row = divmod(index, BLOCK)
        packed = self._block(block)
        return _unpack({name: array[row] for name, array in packed.items()}, maps)

    def _path(self, block: int) -> Path | None:
        if self.folder is None:
            return None
        key = f"r{REVISION}-{self.split}-{self.height}x{self.width}"
        return self.folder / key / f"{self.first_seed + block * BLOCK}-{BLOCK}.npz"

    def _block(self, block: int) -> dict[str, Array]:
        if block not in self._blocks:
            path = self._path(block)
            read = _read(path) if path is not None else None
            if read is None:
                read = self._render(block)
                if path is not None:
                    _write(path, read)
            self._keep(block, read)
        self._blocks.move_to_end(block)
        return self._blocks[block]

    def _keep(self, block: int, arrays: dict[str, Array]) -> None:
        self._blocks[block] = arrays
        self._held += _size(arrays)
        while self._held > self.memory_bytes and len(self._blocks) > 1:
            _, old = self._blocks.popitem(last=False)
            self._held -= _size(old)

    def _render(self, block: int) -> dict[str, Array]:
        first = self.first_seed + block * BLOCK
        packed = [_pack(render(first + k, self.height, self.width, self.split)) for k in range(BLOCK)]
        self.rendered += BLOCK
        return {name: np.stack([p[name] for p in packed]) for name in packed[0]}


def _size(arrays: dict[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _pack(scene: Scene) -> dict[str, Array]:
    return {
        "image": scene.image,
        "mask": scene.mask,
        "normals": np.rint(scene.normals * _SHORT).astype(np.int16),
        "depth": scene.points[..., 2].astype(np.float32),
        "albedo": np.rint(scene.albedo * 255).astype(np.uint8),
        "intrinsics": scene.intrinsics,
        "keypoints": scene.keypoints,
        "visibility": scene.visibility,
        "keypoints_3d": scene.keypoints_3d,
        "kind": np.array([scene.pose, scene.backdrop]),
    }


def _unpack(packed: dict[str, Array], maps: Collection[str]) -> Scene:
    empty = np.zeros((0, 0, 3), np.float32)
    return Scene(
        image=packed["image"],
        mask=packed["mask"],
        normals=_normals(packed["normals"]) if "normals" in maps else empty,
        points=_points(packed["depth"], packed["intrinsics"]) if "points" in maps else empty,
        albedo=packed["albedo"].astype(np.float32) / 255 if "albedo" in maps else empty,
        intrinsics=packed["intrinsics"],
        keypoints=packed["keypoints"],
        visibility=packed["visibility"],
        keypoints_3d=packed["keypoints_3d"],
        pose=str(packed["kind"][0]),
        backdrop=str(packed["kind"][1]),
    )


def _normals(packed: Array) -> Array:
    normals = packed.astype(np.float32)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1)


def _points(depth: Array, intrinsics: Array) -> Array:
    k, depth = intrinsics.astype(np.float64), depth.astype(np.float64)
    height, width = depth.shape
    x = (np.arange(width) - k[0, 2]) / k[0, 0] * depth
    y = (np.arange(height) - k[1, 2])[:, None] / k[1, 1] * depth
    return np.stack([x, y, depth], -1).astype(np.float32)


def _read(path: Path) -> dict[str, Array] | None:
    """A block from disk; None if it is not there or was damaged, in which case it is rendered again."""
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        _LOG.warning("rendering again, since %s cannot be read: %s", path, error)
        return None


def _write(path: Path, block: dict[str, Array]) -> None:
    """Write whole or not at all; a cache that cannot be written only costs time, so it is a warning."""
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **block)
        partial.replace(path)
    except OSError as error:
        _LOG.warning("scenes are not cached, since %s cannot be written: %s", path, error)
        partial.unlink(missing_ok=True)
