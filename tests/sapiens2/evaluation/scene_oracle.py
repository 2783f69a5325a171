"""A backbone that knows the answers: it looks a picture's labels up. What a probe must be able to read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sapiens2.data.synthetic.poses import FAMILIES
from sapiens2.evaluation.config import ProbeConfig
from sapiens2.evaluation.probe_scenes import ProbeScenes
from sapiens2.evaluation.semantic_probe import ask

SIZE, GRID = (64, 48), (8, 6)
NAMES = sorted(FAMILIES["train"])


def config(**changes: object) -> ProbeConfig:
    """Seconds on one core."""
    small = {"n_train": 32, "n_val": 16, "n_test": 16, "image_size": SIZE, "steps": 40, "batch": 16, "rounds": 20}
    return ProbeConfig.model_validate(small | changes)


class Oracle:
    """Class vector: pose family, mean colours. Patches: shares of the parts, mean albedo and normal of each cell."""

    name, dim = "oracle", 40

    def __init__(self, scenes: ProbeScenes) -> None:
        self.known = {}
        for split in ("fit", "val", "test", "transfer"):
            for sample, family in zip(scenes.samples(split), scenes.classes(split), strict=True):
                planes = F.one_hot(torch.from_numpy(sample.mask).long(), 29).movedim(-1, 0).float()  # type: ignore[arg-type]
                rest = [torch.from_numpy(a).movedim(-1, 0) for a in (sample.albedo, sample.normals)]  # type: ignore[arg-type]
                patches = F.adaptive_avg_pool2d(torch.cat([planes, *rest]), GRID)
                patches = torch.cat([patches, torch.ones(5, *GRID)])
                cls = torch.zeros(self.dim)
                cls[8:20] = torch.from_numpy(ask([sample], [family]).colours.flatten())
                if family in NAMES:
                    cls[NAMES.index(family)] = 1
                self.known[sample.image.tobytes()] = (cls, patches)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return GRID

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = [self.known[image.numpy().tobytes()] for image in images]
        return torch.stack([c for c, _ in found]), torch.stack([p for _, p in found])


class Blind:
    """Class vectors and patches that have nothing to do with the picture."""

    name, dim = "blind", 40

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return GRID

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(len(images))
        draw = lambda *size: torch.randn(*size, generator=generator)  # noqa: E731
        return draw(len(images), self.dim), draw(len(images), self.dim, *GRID)
