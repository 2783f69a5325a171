"""A figure of boxes in MakeHuman's file formats: one box about each bone, so that every surface is known exactly."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

HALF = 0.3  # half the thickness of a box, decimetres
# bone: (parent, head, tail), decimetres; right-hand bones are made from the left ones
_MIDDLE = {
    "root": (None, (0, 0, 0), (0, 0.5, 0)),
    "spine05": ("root", (0, 0.5, 0), (0, 1.5, 0)),
    "spine01": ("spine05", (0, 1.5, 0), (0, 5, 0)),
    "neck01": ("spine01", (0, 5, 0), (0, 5.8, 0)),
    "head": ("neck01", (0, 5.8, 0), (0, 7.8, 0)),
}
_LEFT = {
    "clavicle": ("spine01", (0.3, 5, 0), (1.5, 5, 0)),
    "upperarm01": ("clavicle", (1.5, 5, 0), (3, 3, 0)),
    "lowerarm01": ("upperarm01", (3, 3, 0), (4, 1.5, 1)),
    "wrist": ("lowerarm01", (4, 1.5, 1), (4.3, 1, 1.4)),
    "finger2-1": ("wrist", (4.3, 1, 1.6), (4.4, 0.8, 1.8)),
    "finger2-2": ("finger2-1", (4.4, 0.8, 1.8), (4.5, 0.6, 2)),
    "finger2-3": ("finger2-2", (4.5, 0.6, 2), (4.6, 0.4, 2.2)),
    "finger5-1": ("wrist", (4.5, 1, 1.2), (4.6, 0.8, 1.3)),
    "upperleg01": ("root", (1, 0, 0), (1, -4, 0.2)),
    "lowerleg01": ("upperleg01", (1, -4, 0.2), (1.1, -7.5, -0.1)),
    "foot": ("lowerleg01", (1.1, -7.5, -0.1), (1.1, -8, 1.5)),
}


def bones() -> dict[str, tuple[str | None, np.ndarray, np.ndarray]]:
    """Parent, head and tail of every bone at rest."""
    found = {name: (parent, np.array(a, float), np.array(b, float)) for name, (parent, a, b) in _MIDDLE.items()}
    for name, (parent, a, b) in _LEFT.items():
        for side, sign in (("L", 1), ("R", -1)):
            mirror = np.array([sign, 1, 1])
            above = parent if parent in _MIDDLE else f"{parent}.{side}"
            found[f"{name}.{side}"] = (above, np.array(a) * mirror, np.array(b) * mirror)
    return found


def _box(head: np.ndarray, tail: np.ndarray) -> np.ndarray:
    """The eight corners of a box about a bone: four about its head, then four about its tail."""
    along = (tail - head) / np.linalg.norm(tail - head)
    first = np.cross(along, [0.0, 0, 1]) if abs(along[2]) < 0.9 else np.cross(along, [1.0, 0, 0])
    first /= np.linalg.norm(first)
    second = np.cross(along, first)
    ring = [HALF * (a * first + b * second) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return np.array([*(head + r for r in ring), *(tail + r for r in ring)])


_QUADS = ((0, 3, 2, 1), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7))


def write_body(folder: Path) -> Path:
    """The figure's files in a folder, with one suit over the trunk and one target that widens the head."""
    vertices: list[np.ndarray] = []
    faces, weights, skeleton, joints = ["g body"], {}, {}, {}
    for name, (parent, head, tail) in bones().items():
        start = len(vertices)
        vertices += list(_box(head, tail))
        faces += ["f " + " ".join(str(start + k + 1) for k in quad) for quad in _QUADS]
        weights[name] = [[start + k, 1.0] for k in range(8)]
        joints |= {f"{name}-a": [start + k for k in range(4)], f"{name}-b": [start + k for k in range(4, 8)]}
        skeleton[name] = {"head": f"{name}-a", "tail": f"{name}-b", "parent": parent}
    _write(folder / "3dobjs/base.obj", [*("v {} {} {}".format(*v) for v in vertices), *faces])
    _write(folder / "rigs/default.mhskel", [json.dumps({"bones": skeleton, "joints": joints})])
    _write(folder / "rigs/default_weights.mhw", [json.dumps({"weights": weights})])
    trunk = int(weights["spine01"][0][0])
    bound = [f"{trunk + k}" for k in range(7)] + [f"{trunk + 7} {trunk + 7} {trunk + 7} 0.5 0.25 0.25 0 0 0"]
    suit = ["tag Male", "verts 0", *bound, "delete_verts", f"{trunk} - {trunk + 7}"]
    _write(folder / "clothes/shirt/shirt.mhclo", suit)
    corners = ["v 0 0 0"] * 8 + ["f " + " ".join(str(k + 1) for k in quad) for quad in _QUADS]
    _write(folder / "clothes/shirt/shirt.obj", corners)
    target = folder / "mpfb/targets/macrodetails/universal-male-young-averagemuscle-averageweight.target.gz"
    target.parent.mkdir(parents=True)
    target.write_bytes(gzip.compress(b"# widens\n0 .5 0 -.25\n"))
    return folder


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
