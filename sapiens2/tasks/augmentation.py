"""What is done to training samples, as data: one table of recipes by task, and the changes that a run makes to it.

`light` mirrors and changes colours. `release` has the published probabilities and ranges of each task [specification
4]; scale and shift move the framing itself where the release scales a picture that is fitted into the frame afterwards,
which changes nothing but its sharpness. `background` acts on samples of sources that name pictures of backgrounds, and
on no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from sapiens2.config import Config, recipe
from sapiens2.tasks.head_specs import TASKS, TaskName

Recipe = Literal["none", "light", "release"]
Range = tuple[float, float]


class Transform(Config):
    """A change that is made with a probability. Shares are of the frame's sides."""

    p: float = recipe(1.0, ge=0, le=1, description="probability")


class Background(Transform):
    """Another picture behind the person, before all else."""

    tone: float = recipe(1.0, ge=0, le=1, description="share that the person's colours go towards the background's")
    edge: float = recipe(0.7, ge=0, description="sigma of the soft outline, in pixels of the picture; 0 leaves it hard")


class HalfBody(Transform):
    """Only the upper or the lower half of a person, where enough of its points are labelled."""

    least: int = recipe(9, ge=1, description="labelled body points below which nothing is done")
    upper: float = recipe(0.7, ge=0, le=1, description="probability of the upper half where both are possible")
    padding: float = recipe(1.5, gt=0, description="sides of the frame over those of the half's points")


class Scale(Transform):
    """A frame that shows more or less."""

    factor: Range = recipe((0.5, 1.5), description="sides of the new frame over those of the old")
    law: Literal["uniform", "normal"] = "uniform"


class Shift(Transform):
    """A frame beside the person."""

    share: float = recipe(0.16, ge=0, description="largest shift along each side, as a share of it")


class Rotate(Transform):
    """A turn about the frame's middle."""

    degrees: float = recipe(60.0, ge=0, le=180, description="largest angle, either way")
    law: Literal["uniform", "normal"] = recipe("uniform", description="normal: of sigma `degrees`, cut there")


class Crop(Transform):
    """A part of the frame."""

    area: Range = recipe((0.4, 1.0), description="share of the frame's area")
    aspect: Range = recipe((0.5, 2.0), description="width over height, relative to the frame")
    largest_class: float = recipe(1.0, gt=0, le=1, description="share of a class from which another part is tried")
    tries: int = recipe(10, "parts that are tried", ge=1)


class Flip(Transform):
    """The mirror image; sides are swapped."""


class Photometric(Transform):
    """Brightness, contrast, saturation and hue, each with probability 1/2."""

    brightness: float = recipe(32.0, ge=0, le=255, description="largest offset, of 255")
    contrast: float = recipe(0.5, ge=0, lt=1, description="largest change of the factor 1")
    saturation: float = recipe(0.5, ge=0, le=1, description="largest change of the factor 1")
    hue: float = recipe(0.1, ge=0, le=3.15, description="largest turn, in radians")


class Resample(Transform):
    """A picture made smaller and enlarged again."""

    factor: Range = recipe((0.1, 0.7), description="sides of the small picture over those of the frame")


class Blur(Transform):
    """A Gaussian blur."""

    sigma: Range = recipe((0.1, 2.0), description="in pixels")


class MedianBlur(Transform):
    """The median of a neighbourhood."""

    side: int = recipe(5, ge=3, description="of the neighbourhood, odd")


class Noise(Transform):
    """Gaussian noise on every channel."""

    variance: Range = recipe((5.0, 20.0), description="of values of 255")


class Solarize(Transform):
    """Bright values turned round."""

    threshold: int = recipe(128, "from which values are turned, of 255", ge=0, le=255)


class Dropout(Transform):
    """A rectangle of zeros in the picture; labels stay."""

    side: Range = recipe((0.2, 0.4), description="share of the frame's sides")


TRANSFORMS: dict[str, type[Transform]] = {
    "background": Background,
    "half_body": HalfBody,
    "scale": Scale,
    "shift": Shift,
    "rotate": Rotate,
    "crop": Crop,
    "flip": Flip,
    "photometric": Photometric,
    "resample": Resample,
    "blur": Blur,
    "median_blur": MedianBlur,
    "noise": Noise,
    "solarize": Solarize,
    "dropout": Dropout,
}
"""In the order in which they are drawn: geometry, then the picture's own."""
GEOMETRY = ("half_body", "scale", "shift", "rotate", "crop")
COLOURS = ("photometric", "solarize")
"""Changes of colour, which albedo is told by."""

_LIGHT: dict[str, Transform] = {"flip": Flip(p=0.5), "photometric": Photometric(p=0.8)}
_FRAME: dict[str, Transform] = {"scale": Scale(p=0.3, factor=(0.5, 2.0)), "crop": Crop(p=0.3), "flip": Flip(p=0.3)}
_HUE = 0.6283  # 18 of OpenCV's 180
_RELEASE: dict[TaskName, dict[str, Transform]] = {
    "pose": {
        "half_body": HalfBody(p=0.3),
        "scale": Scale(p=1.0, law="normal"),
        "shift": Shift(p=0.3),
        "rotate": Rotate(p=0.6, degrees=80, law="normal"),
        "flip": Flip(p=0.5),
        "photometric": Photometric(p=0.8, hue=_HUE),
        "blur": Blur(p=0.1),
        "median_blur": MedianBlur(p=0.1),
        "dropout": Dropout(p=1.0),
    },
    "segmentation": {
        "background": Background(p=0.8),
        "rotate": Rotate(p=0.5),
        "crop": Crop(p=0.3, area=(0.25, 1.0), aspect=(1.0, 1.0), largest_class=0.75),
        "flip": Flip(p=0.5),
        "photometric": Photometric(hue=_HUE),
        "blur": Blur(p=0.3),
        "noise": Noise(p=0.3),
    },
    "normal": _FRAME
    | {
        "photometric": Photometric(hue=_HUE),
        "resample": Resample(p=0.2),
        "blur": Blur(p=0.3),
        "noise": Noise(p=0.3),
        "solarize": Solarize(p=0.3),
    },
    "pointmap": _FRAME | {"photometric": Photometric(hue=_HUE)},
    "albedo": _FRAME | {"noise": Noise(p=0.2)},
}
RECIPES: dict[Recipe, dict[TaskName, dict[str, Transform]]] = {
    "none": {task: {} for task in TASKS},
    "light": {task: {"flip": _LIGHT["flip"]} if task == "albedo" else _LIGHT for task in TASKS},
    "release": _RELEASE,
}


def augmentation(task: TaskName, table: Recipe, changes: Mapping[str, Any] | None = None) -> dict[str, Transform]:
    """The transforms of a task by name, in the order in which they are drawn.

    changes: name -> a probability, {field: value}, or None to leave it out; what the table does not have is added.
    Raises ValueError for unknown transforms, fields and ranges, and for what a task cannot take.
    """
    chosen: dict[str, Transform] = dict(RECIPES[table][task])
    for name, change in (changes or {}).items():
        if name not in TRANSFORMS:
            raise ValueError(f"no transform is called {name!r}; use {', '.join(TRANSFORMS)}")
        if change is None:
            chosen.pop(name, None)
        else:
            chosen[name] = _changed(name, chosen.get(name), change)
    if task != "pose" and "half_body" in chosen:
        raise ValueError(f"half_body is for pose; leave it out of {task}")
    if task == "albedo" and set(COLOURS) & set(chosen):
        raise ValueError(f"{', '.join(set(COLOURS) & set(chosen))} would change what albedo is told by: leave it out")
    background = chosen.get("background")
    if task == "pose" and background:
        raise ValueError("background is for tasks whose labels say where the person is: leave it out of pose")
    if task == "albedo" and isinstance(background, Background) and background.tone:
        raise ValueError("background.tone would change what albedo is told by: set it to 0")
    return {name: chosen[name] for name in TRANSFORMS if name in chosen}


def _changed(name: str, base: Transform | None, change: Any) -> Transform:
    kind = TRANSFORMS[name]
    fields = {"p": change} if isinstance(change, (int, float)) else change
    if not isinstance(fields, Mapping):
        raise ValueError(f"{name} is {change!r}: give a probability, its fields, or null to leave it out")
    try:
        made = kind.model_validate({**(base.model_dump() if base else {}), **fields})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([name, *map(str, first["loc"])])
        raise ValueError(f"{where}: {first['msg']}; its fields are {', '.join(kind.model_fields)}") from error
    for field, value in made:
        if isinstance(value, tuple) and (value[0] > value[1] or value[0] <= 0):
            raise ValueError(f"{name}.{field}={value} is no range: give (low, high), 0 < low <= high")
    return made
