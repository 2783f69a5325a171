"""Readers of MakeHuman's files: Wavefront meshes, shape targets, skeletons, skin weights and fitted garments.

Lengths are decimetres, x to the person's left, y up, z forward. Vertices are counted from 0.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray


class MakeHumanError(ValueError):
    """A file of MakeHuman's that is missing or cannot be used; the message names it."""


@dataclass(frozen=True)
class Surface:
    """Triangles of a mesh, and what each belongs to."""

    points: Array  # float64 [V, 3]
    faces: Array  # int64 [F, 3], counter-clockwise seen from outside
    groups: Array  # str [F]
    texture: Array  # float64 [F, 3, 2] texture coordinates of the corners, NaN without


@dataclass(frozen=True)
class Bone:
    """One bone in the rest pose."""

    name: str
    parent: str | None
    head: Array  # int [n] vertices whose mean is where it begins
    tail: Array


@dataclass(frozen=True)
class Fit:
    """How a garment hangs on the base mesh: each vertex at a mean of three base vertices plus a scaled offset."""

    anchors: Array  # int64 [V, 3] base vertices
    weights: Array  # float64 [V, 3]
    offsets: Array  # float64 [V, 3]
    scales: tuple[tuple[int, int, float] | None, ...]  # of x, y, z: two base vertices and their reference distance
    hidden: Array  # int64 base vertices that the garment covers
    tags: tuple[str, ...]


def lines_of(path: Path) -> list[str]:
    """The lines of a text file, plain or gzip; raises MakeHumanError when it cannot be read."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode("utf-8").splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise MakeHumanError(f"{path} cannot be read: {error}") from error


def _json(path: Path, key: str) -> dict[str, Any]:
    try:
        found = json.loads("\n".join(lines_of(path)))[key]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise MakeHumanError(f"{path} is no JSON object with {key!r}: {error}") from error
    if not isinstance(found, dict):
        raise MakeHumanError(f"{path}: {key!r} is no object")
    return found


def read_surface(path: Path) -> Surface:
    """A Wavefront .obj; polygons are cut into fans. Raises MakeHumanError for a face that names no vertex."""
    points, texture, faces, corners, groups, group = [], [], [], [], [], ""
    for number, line in enumerate(lines_of(path), 1):
        word, *rest = line.split() or [""]
        try:
            if word == "v":
                points.append([float(value) for value in rest[:3]])
            elif word == "vt":
                texture.append([float(value) for value in rest[:2]])
            elif word == "g":
                group = rest[0] if rest else ""
            elif word == "f":
                polygon = [[int(part) if part else 0 for part in corner.split("/")] for corner in rest]
                for k in range(1, len(polygon) - 1):
                    triangle = (polygon[0], polygon[k], polygon[k + 1])
                    faces.append([corner[0] - 1 for corner in triangle])
                    corners.append([corner[1] - 1 if len(corner) > 1 else -1 for corner in triangle])
                    groups.append(group)
        except ValueError as error:
            raise MakeHumanError(f"{path}, line {number}: {error}") from error
    index, at = np.array(faces, np.int64).reshape(-1, 3), np.array(corners, np.int64).reshape(-1, 3)
    _within(index, len(points), path)
    uv = np.array([*texture, [np.nan, np.nan]], float)
    at[(at < 0) | (at >= len(texture))] = len(texture)
    return Surface(np.array(points, float).reshape(-1, 3), index, np.array(groups), uv[at])


def _within(index: Array, count: int, path: Path) -> None:
    if index.size and (index.min() < 0 or index.max() >= count):
        raise MakeHumanError(f"{path} names vertex {int(index.max())}, but there are {count}: is it of another mesh?")


def read_target(path: Path, count: int) -> Array:
    """Displacements [count, 3] of a shape target, 0 where it says nothing."""
    rows = [line.split() for line in lines_of(path) if line.strip() and not line.startswith("#")]
    out = np.zeros((count, 3))
    if rows:
        values = _numbers(rows, 4, path)
        index = values[:, 0].astype(np.int64)
        _within(index, count, path)
        out[index] = values[:, 1:]
    return out


def _numbers(rows: list[list[str]], width: int, path: Path) -> Array:
    try:
        found = np.array(rows, float)
    except ValueError as error:
        raise MakeHumanError(f"{path} has a line of other than {width} numbers") from error
    if found.ndim != 2 or found.shape[1] != width:
        raise MakeHumanError(f"{path} has a line of other than {width} numbers")
    return found


def read_skeleton(path: Path, count: int) -> list[Bone]:
    """Bones of a .mhskel file, parents before children."""
    bones, joints = _json(path, "bones"), _json(path, "joints")
    found: dict[str, Bone] = {}
    try:
        for name, bone in bones.items():
            ends = [np.array(joints[bone[end]], np.int64) for end in ("head", "tail")]
            for end in ends:
                _within(end, count, path)
            found[name] = Bone(name, bone["parent"], *ends)
    except (KeyError, TypeError) as error:
        raise MakeHumanError(f"{path}: bone {name!r} lacks {error}") from error
    order: list[Bone] = []
    placed: set[str | None] = {None}
    while len(order) < len(found):
        ready = [b for b in found.values() if b.name not in placed and b.parent in placed]
        if not ready:
            lost = next(b for b in found.values() if b.name not in placed)
            raise MakeHumanError(f"{path}: bone {lost.name!r} hangs on {lost.parent!r}, which leads to no root")
        order += ready
        placed |= {b.name for b in ready}
    return order


def read_weights(path: Path, bones: list[Bone], count: int) -> Array:
    """Share [count, bones] of each bone in each vertex, of a .mhw file; rows sum to 1, the root has the rest."""
    table = _json(path, "weights")
    out = np.zeros((count, len(bones)))
    for column, bone in enumerate(bones):
        pairs = np.array(table.get(bone.name, []), float).reshape(-1, 2)
        index = pairs[:, 0].astype(np.int64)
        _within(index, count, path)
        np.add.at(out[:, column], index, pairs[:, 1])
    out[out.sum(1) <= 0, 0] = 1.0
    return out / out.sum(1, keepdims=True)


def read_fit(path: Path, count: int) -> Fit:
    """A .mhclo file on a base mesh of `count` vertices."""
    scales: list[tuple[int, int, float] | None] = [None, None, None]
    section, rows, hidden, tags = "", [], [], []
    for line in lines_of(path):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if words[0] in ("x_scale", "y_scale", "z_scale"):
            scales["xyz".index(words[0][0])] = (int(words[1]), int(words[2]), float(words[3]))
        elif words[0] == "tag":
            tags.append(" ".join(words[1:]))
        elif words[0] in ("verts", "delete_verts"):
            section = words[0]
        elif words[0][0].isalpha():
            continue
        elif section == "verts":
            # One number: that vertex itself.
            rows.append(words if len(words) == 9 else [words[0]] * 3 + ["1", "0", "0", "0", "0", "0"])
        elif section == "delete_verts":
            hidden += _ranges(words, path)
    values = _numbers(rows, 9, path) if rows else np.zeros((0, 9))
    anchors, covered = values[:, :3].astype(np.int64), np.array(hidden, np.int64)
    _within(anchors, count, path)
    _within(covered, count, path)
    _within(np.array([v for scale in scales if scale for v in scale[:2]], np.int64), count, path)
    return Fit(anchors, values[:, 3:6], values[:, 6:], tuple(scales), covered, tuple(tags))


def _ranges(words: list[str], path: Path) -> list[int]:
    """`3 - 6 9` as 3, 4, 5, 6, 9."""
    out: list[int] = []
    try:
        for k, word in enumerate(words):
            if word == "-":
                out += range(int(words[k - 1]) + 1, int(words[k + 1]))
            else:
                out.append(int(word))
    except (ValueError, IndexError) as error:
        raise MakeHumanError(f"{path}: {' '.join(words)!r} is no list of vertices") from error
    return out
