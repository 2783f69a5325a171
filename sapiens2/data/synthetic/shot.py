"""From a mesh and a camera to a picture and every label of it.

Axes and units (also in docs): camera frame x right, y down, z forward, metres. `points` hold the visible surface,
`normals` point out of it, so they look back at the camera (their z is mostly negative); mirroring an image negates
their x. Pixel centres have whole coordinates, so mirroring sends x to width - 1 - x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sapiens2.data.synthetic.backdrop import Backdrop, Light, paint_backdrop
from sapiens2.data.synthetic.camera import Camera
from sapiens2.data.synthetic.figure import Figure
from sapiens2.data.synthetic.paint import Painted
from sapiens2.data.synthetic.raster import Hits, project, rasterise
from sapiens2.data.synthetic.shading import shade
from sapiens2.data.synthetic.surface import Mesh

Array = np.ndarray
Painter = Callable[[Array, Array, Array], Painted]
"""Part [N], side [N] and surface coordinates [N, 2] of pixels -> what they look like and are."""


@dataclass
class Scene:
    """A rendered person and the exact labels."""

    image: Array  # uint8 [H, W, 3] sRGB
    mask: Array  # uint8 [H, W] part class, 0 background
    normals: Array  # float32 [H, W, 3] unit, camera frame; 0 outside the person
    points: Array  # float32 [H, W, 3] metres, camera frame; 0 outside
    albedo: Array  # float32 [H, W, 3] sRGB in [0, 1]; 0 outside
    intrinsics: Array  # float32 [3, 3] pixels
    keypoints: Array  # float32 [308, 2] pixels (x, y)
    visibility: Array  # uint8 [308] 0 outside the frame, 1 hidden, 2 seen
    keypoints_3d: Array  # float32 [308, 3] metres, camera frame
    pose: str  # pose family
    backdrop: str  # background family

    @property
    def valid(self) -> Array:
        """bool [H, W]: the person's pixels."""
        return self.mask > 0

    @property
    def box(self) -> Array:
        """float32 [4] x0, y0, x1, y1: the tight box of the person's pixels, edges at pixel borders."""
        rows, columns = np.flatnonzero(self.valid.any(1)), np.flatnonzero(self.valid.any(0))
        return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32) - 0.5


def _interpolate(values: Array, mesh: Mesh, hits: Hits) -> Array:
    corners = mesh.faces[hits.face]
    w = hits.weights
    return values[corners[:, 0]] * w[:, :1] + values[corners[:, 1]] * w[:, 1:2] + values[corners[:, 2]] * w[:, 2:]


def _surface(mesh: Mesh, hits: Hits, points: Array) -> Array:
    """Unit normals [N, 3] towards the camera; smooth ones that turn away at a silhouette are bent back to it."""
    n = _interpolate(mesh.normals, mesh, hits)
    n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-9)
    view = points / np.linalg.norm(points, axis=1, keepdims=True)
    facing = (n * view).sum(1)
    backside = (mesh.facing[hits.face] == 0) & (facing > 0)
    n[backside] *= -1
    facing[backside] *= -1
    n -= np.maximum(facing + 1e-3, 0)[:, None] * view
    return n / np.linalg.norm(n, axis=1, keepdims=True)


def _visibility(figure: Figure, camera_points: Array, xy: Array, depth: Array) -> Array:
    """0 outside, 1 hidden, 2 seen: the surface in the 3 x 3 pixels around a point is not in front of it by more than
    its slack, and not far behind either."""
    height, width = depth.shape
    x, y = np.rint(xy[:, 0]).astype(int), np.rint(xy[:, 1]).astype(int)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (camera_points[:, 2] > 0)
    padded = np.pad(depth, 1, constant_values=np.inf)
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    around = np.stack([padded[y + dy, x + dx] for dy in range(3) for dx in range(3)])
    gap = camera_points[:, 2] - around
    seen = ((gap < figure.slack) & (gap > -0.02)).any(0)
    return np.where(inside, np.where(seen, 2, 1), 0).astype(np.uint8)


def _rays(camera: Camera, height: int, width: int, step: int) -> Array:
    """Camera rays [h, w, 3] with z = 1 on a grid coarser by `step`."""
    k = camera.intrinsics
    v, u = np.meshgrid(np.arange(0, height + step - 1, step), np.arange(0, width + step - 1, step), indexing="ij")
    return np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u, float)], -1)


def _label(
    image: Array,
    figure: Figure,
    camera: Camera,
    hits: Hits,
    normals: Array,
    points: Array,
    painted: Painted,
    kinds: tuple[str, str],
) -> Scene:
    """The scene from its drawn pixels; props hide but are no part of any label."""
    height, width = image.shape[:2]
    keypoint_space = camera.to_camera(figure.points)
    keypoint_xy, _ = project(keypoint_space, camera.intrinsics)
    depth = np.full(height * width, np.inf)
    depth[hits.pixel] = hits.depth
    person_pixels = painted.label > 0

    def dense(values: Array) -> Array:
        out = np.zeros((height * width, 3), np.float32)
        out[hits.pixel[person_pixels]] = values[person_pixels]
        return out.reshape(height, width, 3)

    mask = np.zeros(height * width, np.uint8)
    mask[hits.pixel] = painted.label
    return Scene(
        image=image,
        mask=mask.reshape(height, width),
        normals=dense(normals),
        points=dense(points),
        albedo=dense(painted.albedo),
        intrinsics=camera.intrinsics.astype(np.float32),
        keypoints=keypoint_xy.astype(np.float32),
        visibility=_visibility(figure, keypoint_space, keypoint_xy, depth.reshape(height, width)),
        keypoints_3d=keypoint_space.astype(np.float32),
        pose=kinds[0],
        backdrop=kinds[1],
    )


def photograph(
    rng: np.random.Generator,
    mesh: Mesh,
    painter: Painter,
    figure: Figure,
    camera: Camera,
    backdrop: Backdrop,
    light: Light,
    size: tuple[int, int],
    pose: str,
) -> Scene:
    """The picture [height, width] = `size` of a mesh in world axes, which is moved to camera axes, and its labels.

    Pixels that the painter labels 0 hide the person but are no part of any label. pose: the name of its family.
    """
    height, width = size
    mesh.points, mesh.normals = camera.to_camera(mesh.points), mesh.normals @ camera.axes.T
    xy, z = project(mesh.points, camera.intrinsics)
    hits = rasterise(xy, z, mesh.faces, mesh.facing, height, width)
    rays = _rays(camera, height, width, 1).reshape(-1, 3)[hits.pixel]
    points = rays * hits.depth[:, None]
    normals = _surface(mesh, hits, points)
    coords = _interpolate(mesh.coords, mesh, hits).astype(np.float32)
    painted = painter(mesh.part[hits.face], mesh.side[hits.face], coords)
    step = 2 if min(height, width) >= 64 else 1
    feet = figure.points[[13, 14, 9]][:, [0, 2]]
    behind = paint_backdrop(
        backdrop, _rays(camera, height, width, step), camera.position, camera.axes.T, figure.ground, feet
    )
    image = shade(rng, light, behind, step, (height, width), hits, normals, points, painted, mesh, camera)
    return _label(image, figure, camera, hits, normals, points, painted, (pose, backdrop.kind))
