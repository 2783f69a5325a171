"""The photographs that installed packages bring along, and where the people in them are.

matplotlib, scikit-image, scikit-learn and ultralytics ship a few test pictures. They are found on disk without
importing the packages (ultralytics alone would take seconds), and every one is optional.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

# name -> (package, path inside it)
_SHIPPED: dict[str, tuple[str, str]] = {
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    "astronaut": ("skimage", "data/astronaut.png"),
    "camera": ("skimage", "data/camera.png"),
    "zidane": ("ultralytics", "assets/zidane.jpg"),
    "bus": ("ultralytics", "assets/bus.jpg"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "motorcycle_right": ("skimage", "data/motorcycle_right.png"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg"),
    "retina": ("skimage", "data/retina.jpg"),
    "coins": ("skimage", "data/coins.png"),
    "brick": ("skimage", "data/brick.png"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "page": ("skimage", "data/page.png"),
    "logo": ("skimage", "data/logo.png"),
    "horse": ("skimage", "data/horse.png"),
    "ihc": ("skimage", "data/ihc.png"),
    "moon": ("skimage", "data/moon.png"),
    "chessboard": ("skimage", "data/chessboard_GRAY.png"),
}


@dataclass(frozen=True)
class Framing:
    """One way to frame a person: the picture, the person's name, and the crop (x0, y0, x1, y1) in its pixels."""

    picture: str
    person: str
    crop: tuple[int, int, int, int]


def _framings(picture: str, person: str, *crops: tuple[int, int, int, int]) -> list[Framing]:
    return [Framing(picture, person, crop) for crop in crops]


# From the whole figure to the head, in several aspects; chosen by eye so that a person fills most of each crop.
FRAMINGS: list[Framing] = [
    *_framings("astronaut", "astronaut", (0, 0, 512, 512), (70, 0, 370, 400), (110, 0, 340, 230), (0, 0, 360, 512)),
    *_framings("astronaut", "astronaut", (20, 60, 420, 360), (100, 10, 512, 420), (140, 5, 310, 215)),
    *_framings("hopper", "hopper", (0, 0, 512, 600), (90, 0, 450, 420), (130, 60, 410, 360), (0, 120, 400, 600)),
    *_framings("hopper", "hopper", (60, 10, 512, 350), (150, 0, 390, 330), (120, 150, 512, 600)),
    *_framings("camera", "cameraman", (0, 20, 420, 512), (60, 40, 360, 340), (0, 0, 512, 400), (130, 50, 330, 250)),
    *_framings("zidane", "zidane", (160, 170, 800, 720), (420, 170, 760, 560), (300, 120, 1180, 720)),
    *_framings("zidane", "zidane", (440, 180, 700, 470), (120, 150, 720, 720)),
    *_framings("zidane", "ancelotti", (720, 20, 1180, 720), (820, 10, 1130, 330), (780, 20, 1270, 560)),
    *_framings("zidane", "ancelotti", (860, 20, 1100, 290), (840, 30, 1160, 700)),
    *_framings("zidane", "both", (100, 0, 1200, 720), (400, 0, 1280, 640)),
    *_framings("bus", "beige_coat", (10, 370, 300, 920), (30, 380, 260, 680), (0, 390, 350, 800), (60, 385, 200, 570)),
    *_framings("bus", "dark_coat", (190, 380, 390, 880), (200, 390, 400, 650), (170, 400, 480, 850)),
    *_framings("bus", "both", (0, 360, 420, 930), (0, 330, 520, 780)),
    *_framings("bus", "walker", (640, 480, 810, 880)),
]

# Photographs and other pictures without people, taken exactly as they are shipped.
WITHOUT_PEOPLE = [name for name in _SHIPPED if name not in {framing.picture for framing in FRAMINGS}]


def find_pictures() -> dict[str, Path]:
    """Where the shipped pictures are, by name; those of packages that are not installed are absent."""
    found = {}
    for name, (package, inside) in _SHIPPED.items():
        spec = importlib.util.find_spec(package)
        path = Path(spec.origin).parent / inside if spec is not None and spec.origin else None
        if path is not None and path.is_file():
            found[name] = path
    return found
