"""From a seed to a picture of a person with every label of the five tasks.

Axes and units are those of `sapiens2.data.synthetic.shot`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sapiens2.data.synthetic.backdrop import draw_backdrop, draw_light
from sapiens2.data.synthetic.camera import Camera, aim, draw_view
from sapiens2.data.synthetic.fabric import draw_fabric
from sapiens2.data.synthetic.figure import Figure, box, build_figure
from sapiens2.data.synthetic.paint import Painted, paint_surface
from sapiens2.data.synthetic.person import draw_person
from sapiens2.data.synthetic.poses import draw_pose
from sapiens2.data.synthetic.shot import Scene, photograph
from sapiens2.data.synthetic.surface import Sheet, assemble, rotation

Array = np.ndarray
REVISION = 1
"""Raised whenever the same seed gives other pixels or labels."""
# split: families of (poses, looks); looks are fabric patterns and kinds of background
_FAMILIES = {"train": ("train", "train"), "test": ("test", "test"), "transfer": ("train", "test")}
SPLITS = tuple(_FAMILIES)


def families(split: str, height: int, width: int) -> tuple[str, str]:
    """Families of (poses, looks) of a split; raises ValueError for an unknown one or a picture that is too small."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; use one of {', '.join(SPLITS)}")
    if min(height, width) < 16:
        raise ValueError(f"a scene of {height} x {width} pixels is too small; use at least 16 x 16")
    return _FAMILIES[split]


def props(rng: np.random.Generator, figure: Figure, seated: bool) -> list[Sheet]:
    """A seat under a seated person; now and then something in front of the legs."""
    hip = 0.5 * (figure.points[9] + figure.points[10])
    sheets = []
    if seated:
        top = hip[1] - 0.13
        low = np.array([hip[0] - 0.24, figure.ground, hip[2] - 0.28])
        sheets.append(box(low, np.array([hip[0] + 0.24, top, hip[2] + 0.12]), rotation(1, rng.normal(0, 0.2))))
    if rng.random() < 0.12:
        width, height = rng.uniform(0.2, 0.5), rng.uniform(0.25, 0.75)
        middle = hip + np.array([rng.normal(0, 0.3), 0, rng.uniform(0.45, 0.7)])
        low = np.array([middle[0] - width, figure.ground, middle[2] - 0.12])
        sheets.append(
            box(
                low,
                np.array([middle[0] + width, figure.ground + height, middle[2] + 0.12]),
                rotation(1, rng.normal(0, 0.3)),
            )
        )
    return sheets


def render(
    seed: int, height: int, width: int, split: str = "train", *, change: Callable[[Camera], Camera] | None = None
) -> Scene:
    """The scene of a seed. Splits share no random stream.

    train and test share no pose family, fabric pattern or kind of background; transfer has the poses of train in the
    patterns and backgrounds of test. height, width: pixels, at least 16; raises ValueError otherwise or for an unknown
    split. change: the same scene through another camera than its own, which is how the geometry of labels is tested.
    """
    poses, looks = families(split, height, width)
    rng = np.random.default_rng([REVISION, SPLITS.index(split), seed])
    pose = draw_pose(rng, poses)
    person = draw_person(rng, looks, pose.seated)
    figure = build_figure(person, pose)
    body = np.concatenate([s.points.reshape(-1, 3) for s in figure.sheets])
    camera = aim(draw_view(rng), body, figure.crown, height, width)
    camera = camera if change is None else change(camera)
    backdrop, light, prop = draw_backdrop(rng, looks), draw_light(rng), draw_fabric(rng, looks, 0.8)
    mesh = assemble(figure.sheets + props(rng, figure, pose.seated))

    def painter(part: Array, side: Array, coords: Array) -> Painted:
        return paint_surface(person, prop, part, side, coords)

    return photograph(rng, mesh, painter, figure, camera, backdrop, light, (height, width), pose.family)
