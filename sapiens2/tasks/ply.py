"""Coloured points as a binary PLY file, which Blender, MeshLab, CloudCompare and Open3D open."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def ply_bytes(points: Array, colours: Array) -> bytes:
    """points: float [N, 3] metres; colours: uint8 [N, 3] RGB. Axes as predicted: x right, y down, z away.

    Raises ValueError for arrays of different lengths.
    """
    if points.shape != (len(points), 3) or colours.shape != points.shape:
        raise ValueError(f"points {list(points.shape)} and colours {list(colours.shape)} are not both [N, 3]")
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment metres; x right, y down, z away from the camera",
        f"element vertex {len(points)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
        "end_header\n",
    ]
    rows = np.empty(len(points), dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["rgb"] = points, colours
    return "\n".join(header).encode() + rows.tobytes()
