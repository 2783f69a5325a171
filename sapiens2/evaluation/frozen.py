"""Frozen backbones behind one call: pictures in, class vectors and patch maps out; ours, timm's and transformers'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sapiens2.model.backbone import Backbone, build_backbone
from sapiens2.model.normalise import normalise
from sapiens2.model.sizes import SIZES
from sapiens2.model.weights import load_state, read_state

Pixels = tuple[int, int]


class Extractor(Protocol):
    """A frozen backbone. It never trains, and its weights never change."""

    name: str
    dim: int

    def grid(self, height: int, width: int) -> Pixels:
        """Rows and columns of its own patch map for images of this size."""

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 images [B, H, W, 3] RGB -> class vectors [B, D] and patch maps [B, D, h, w], float32."""


class OurBackbone:
    """One of our backbones as an extractor."""

    def __init__(self, backbone: Backbone, name: str) -> None:
        self.backbone, self.name = backbone.eval(), name
        self.dim = backbone.architecture.dim

    def grid(self, height: int, width: int) -> Pixels:
        """Rows and columns of tokens; raises ValueError when the size does not divide into them."""
        return self.backbone.grid(height, width)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See Extractor."""
        self.backbone.eval()
        features = self.backbone(normalise(images.to(self.backbone.cls_token.device)))
        return features.cls.float(), features.patches.float()


def open_backbone(reference: str, *, pretrained: bool = True) -> Extractor:
    """A frozen backbone by name, on the GPU if there is one.

    `timm:NAME` and `hf:NAME` take their published weights, downloaded at need, or those of a local place:
    `timm:NAME@FILE`, `hf:FOLDER`. Everything else is the path or URI of one of our files, or of a released one.
    `pretrained=False` leaves timm's weights as they were drawn. Raises ValueError for an unknown name.
    """
    kind, colon, name = reference.partition(":")
    if colon and kind == "timm":
        from sapiens2.evaluation.foreign import TimmBackbone

        return TimmBackbone(name, pretrained=pretrained)
    if colon and kind == "hf":
        from sapiens2.evaluation.foreign import HfBackbone

        return HfBackbone(name)
    if colon and kind not in ("file", "s3") and not Path(reference).exists():
        raise ValueError(f"unknown backbone {reference!r}: use timm:NAME, hf:NAME, or the path of a .safetensors file")
    return load_backbone(reference)


def load_backbone(path: str, name: str = "") -> OurBackbone:
    """The backbone in a safetensors file of ours or of the release; its size is told from the shapes."""
    state = read_state(path)
    size, windows = size_of(state, path)
    with torch.device("meta"):
        backbone = build_backbone(size, window_tokenizer=windows)
    load_state(backbone, state, where=path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return OurBackbone(backbone.to(device), name or Path(path).stem)


def size_of(state: dict[str, Tensor], where: str) -> tuple[str, bool]:
    """Size and window tokenizer of a state dict. Raises ValueError when no row of the sizes fits."""
    state = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}
    patch = state.get("patch_embed.projection.weight", state.get("embeddings.patch_embeddings.projection.weight"))
    if patch is None:
        raise ValueError(f"{where} holds no Sapiens2 backbone: its names have no patch embedding")
    words = [name.split(".") for name in state]
    numbers = [int(w[1]) for w in words if w[0] in ("blocks", "layer", "layers") and w[1].isdigit()]
    numbers += [int(w[2]) for w in words if w[:2] == ["encoder", "layer"]]
    layers = max(numbers, default=-1) + 1
    for size, arch in SIZES.items():
        if (arch.dim, arch.patch, arch.layers) == (patch.shape[0], patch.shape[-1], layers):
            return size, any(name.startswith("tokenizer.") for name in state)
    raise ValueError(f"{where} holds {layers} blocks of width {patch.shape[0]}, which is none of {', '.join(SIZES)}")


class Features(NamedTuple):
    """What a frozen backbone says of a set of pictures, kept in memory."""

    cls: Tensor  # float32 [N, D]
    patches: Tensor  # float32 or float16 [N, D, h, w]

    @property
    def mean(self) -> Tensor:
        """Mean patch vectors, float32 [N, D]."""
        return self.patches.float().mean((2, 3))


def extract(
    extractor: Extractor, images: Sequence[np.ndarray], grid: Pixels | None, *, batch: int = 32, half: bool = False
) -> Features:
    """Features of uint8 images [H, W, 3] of one size, patch maps resampled to `grid` where they have another one.

    `half` keeps patch maps in float16, half the memory.
    """
    cls, patches = [], []
    for start in range(0, len(images), batch):
        found, maps = extractor(torch.from_numpy(np.stack(images[start : start + batch])))
        cls.append(found.cpu())
        patches.append(to_grid(maps, grid).cpu().to(torch.float16 if half else torch.float32))
    return Features(torch.cat(cls), torch.cat(patches))


def to_grid(maps: Tensor, grid: Pixels | None) -> Tensor:
    """Patch maps [B, D, h, w] on another grid: averaged where it is coarser, bilinear where it is finer."""
    if grid is None or tuple(maps.shape[2:]) == tuple(grid):
        return maps
    return F.interpolate(maps, grid, mode="bilinear", align_corners=False, antialias=True)
