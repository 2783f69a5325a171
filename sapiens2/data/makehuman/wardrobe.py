"""What the triangles of a body and of its clothes are: part classes by bones and by the place of a garment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sapiens2.data.makehuman.files import Bone, Fit, MakeHumanError, Surface, read_fit, read_surface
from sapiens2.data.synthetic.vocabulary import CLASS

Array = np.ndarray
# Beginnings of bone names, and the class of the skin that follows them; what comes first counts.
_SKIN = (
    ("upperarm", "{}_Upper_Arm"), ("lowerarm", "{}_Lower_Arm"), ("wrist", "{}_Hand"), ("metacarpal", "{}_Hand"),
    ("finger", "{}_Hand"), ("upperleg", "{}_Upper_Leg"), ("lowerleg", "{}_Lower_Leg"), ("foot", "{}_Foot"),
    ("toe", "{}_Foot"), ("spine", "Torso"), ("breast", "Torso"), ("clavicle", "Torso"), ("shoulder", "Torso"),
    ("pelvis", "Torso"), ("root", "Torso"),
)  # fmt: skip
_WORD = {"L": "Left", "R": "Right"}
SHOES = "Shoes"
_SOCK_HEIGHT_DM = 1.0  # what a stocking rises over the shoe that it comes with


@dataclass(frozen=True)
class Garment:
    """Something that is worn, bound to the base mesh."""

    name: str
    surface: Surface
    fit: Fit
    labels: Array  # uint8 [F] part class

    @property
    def is_shoes(self) -> bool:
        """Whether it goes on the feet."""
        return SHOES in self.fit.tags

    def points(self, base: Array) -> Array:
        """Its vertices on a base mesh at rest [V, 3], in decimetres."""
        return fitted(self.fit, base)

    def weights(self, base: Array) -> Array:
        """Shares of the bones in its vertices, from those of the base mesh [V, B]."""
        shares = (self.fit.weights[..., None].clip(0) * base[self.fit.anchors]).sum(1)
        return np.asarray(shares / np.maximum(shares.sum(1, keepdims=True), 1e-9))


def fitted(fit: Fit, base: Array) -> Array:
    """Vertices of a garment on base points [V, 3]: mean of the anchors plus the offset, stretched with the body."""
    stretch = np.ones(3)
    for axis, scale in enumerate(fit.scales):
        if scale is not None:
            first, second, reference = scale
            stretch[axis] = abs(base[first, axis] - base[second, axis]) / reference
    return np.asarray((fit.weights[..., None] * base[fit.anchors]).sum(1) + fit.offsets * stretch)


def skin_class(bone: str) -> int:
    """The class of skin that follows a bone; whatever no limb and no trunk claims is of the head."""
    name, _, side = bone.partition(".")
    for start, part in _SKIN:
        if name.startswith(start):
            return CLASS[part.format(_WORD.get(side, ""))]
    return CLASS["Face_Neck"]


def skin_labels(faces: Array, weights: Array, bones: list[Bone]) -> Array:
    """Part class uint8 [F] of skin triangles: that of the bone with the largest share in the corners."""
    classes = np.array([skin_class(bone.name) for bone in bones])
    return classes[weights[faces].sum(1).argmax(1)].astype(np.uint8)


def read_garment(path: Path, base: Array, waist: tuple[float, float], *, hair: bool = False) -> Garment | None:
    """A .mhclo file of clothes or hair, and the .obj beside it.

    base: the base mesh [V, 3]; waist: heights at rest below which no shirt ends and above which no trousers begin.
    None for a suit of which a connected piece is both, since then nothing says which triangle is which.
    """
    fit = read_fit(path, len(base))
    surface = read_surface(path.with_suffix(".obj"))
    if len(surface.points) != len(fit.anchors):
        raise MakeHumanError(f"{path} binds {len(fit.anchors)} vertices, its .obj has {len(surface.points)}")
    points = fitted(fit, base)
    if hair:
        return Garment(path.stem, surface, fit, np.full(len(surface.faces), CLASS["Hair"], np.uint8))
    piece = pieces(surface.faces, len(points))
    labels = np.zeros(len(points), np.uint8)
    for number in range(int(piece.max()) + 1):
        mine = piece == number
        found = _shoe(points[mine]) if SHOES in fit.tags else _cloth(points[mine], waist)
        if found is None:
            return None
        labels[mine] = CLASS[found]
    return Garment(path.stem, surface, fit, labels[surface.faces[:, 0]])


def _cloth(points: Array, waist: tuple[float, float]) -> str | None:
    low, high = points[:, 1].min(), points[:, 1].max()
    if high <= waist[1]:
        return "Lower_Clothing"
    return "Upper_Clothing" if low >= waist[0] else None


def _shoe(points: Array) -> str:
    height = float(np.ptp(points[:, 1]))
    side = "Left" if points[:, 0].mean() > 0 else "Right"
    sole = float(np.ptp(points[:, 2]))
    return f"{side}_Sock" if height > max(_SOCK_HEIGHT_DM, sole) else f"{side}_Shoe"


def pieces(faces: Array, count: int) -> Array:
    """Number [V] of the connected piece that each vertex is in."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1])
