"""A rigged mesh in a pose: bones turn about their heads, the skin follows by linear blending."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sapiens2.data.makehuman.files import Bone

Array = np.ndarray


@dataclass(frozen=True)
class Rig:
    """Bones of a shaped body in its rest pose; lengths in the unit of its points."""

    bones: list[Bone]  # parents first
    heads: Array  # [B, 3]
    tails: Array  # [B, 3]

    @classmethod
    def of(cls, bones: list[Bone], points: Array) -> Rig:
        """The rig of a shape: its joints are means of vertices [V, 3], so they move with it."""
        heads = np.stack([points[bone.head].mean(0) for bone in bones])
        return cls(bones, heads, np.stack([points[bone.tail].mean(0) for bone in bones]))

    def index(self, name: str) -> int:
        """Row of a bone; KeyError if there is none."""
        for row, bone in enumerate(self.bones):
            if bone.name == name:
                return row
        raise KeyError(name)

    def has(self, name: str) -> bool:
        """Whether there is such a bone."""
        return any(bone.name == name for bone in self.bones)

    def head(self, name: str) -> Array:
        """Where a bone begins at rest [3]."""
        return np.asarray(self.heads[self.index(name)])

    def tail(self, name: str) -> Array:
        """Where a bone ends at rest [3]."""
        return np.asarray(self.tails[self.index(name)])


def below(bones: list[Bone], root: str) -> Array:
    """bool [B]: the bone called `root` and everything that hangs on it."""
    names = {root}
    for bone in bones:  # parents come first
        if bone.parent in names:
            names.add(bone.name)
    return np.array([bone.name in names for bone in bones])


@dataclass(frozen=True)
class Posed:
    """What a pose does to each bone: x -> turn @ x + shift."""

    turn: Array  # [B, 3, 3]
    shift: Array  # [B, 3]

    def move(self, row: int, points: Array) -> Array:
        """Points [..., 3] at rest that are fixed to a bone, in the pose."""
        return points @ self.turn[row].T + self.shift[row]

    def skin(self, points: Array, weights: Array) -> Array:
        """Points [V, 3] at rest by their shares [V, B] of the bones, in the pose."""
        turn = np.einsum("vb,bij->vij", weights, self.turn, optimize=True)
        return np.asarray(np.einsum("vij,vj->vi", turn, points) + weights @ self.shift)


def pose(rig: Rig, turns: Mapping[str, Array]) -> Posed:
    """Bones by their rotation [3, 3] out of the rest pose, in the axes of the body; others follow their parent.

    Every bone begins where its parent has carried its head. Names that the rig lacks are ignored.
    """
    rows = {bone.name: row for row, bone in enumerate(rig.bones)}
    turn = np.zeros((len(rig.bones), 3, 3))
    shift = np.zeros((len(rig.bones), 3))
    for row, bone in enumerate(rig.bones):
        parent = None if bone.parent is None else rows[bone.parent]
        inherited = np.eye(3) if parent is None else turn[parent]
        turn[row] = turns.get(bone.name, inherited)
        at = rig.heads[row] if parent is None else turn[parent] @ rig.heads[row] + shift[parent]
        shift[row] = at - turn[row] @ rig.heads[row]
    return Posed(turn, shift)
