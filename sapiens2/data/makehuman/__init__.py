"""MakeHuman's meshes as bodies of rendered people: files of the hm08 base mesh, its rig, its clothes and its hair."""

from sapiens2.data.makehuman.bodies import Bodies

__all__ = ["Bodies"]
