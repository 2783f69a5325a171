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
from sapiens2.model.foreign import ForeignBackbone, build_foreign, state_digest
from sapiens2.model.foreign_files import SHOWN, file_sha256, local_digest, shown_name
from sapiens2.model.foreign_names import LIBRARIES, RANDOM
from sapiens2.model.normalise import normalise
from sapiens2.model.sizes import SIZES, Architecture
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


class FrozenBackbone:
    """A backbone of ours, or another one behind the same interface (sapiens2.model.foreign)."""

    def __init__(
        self, backbone: Backbone | ForeignBackbone, name: str, *, dim: int, cell: int, origin: str = ""
    ) -> None:
        """cell: pixels of the picture per cell of the patch map; foreign ones see it enlarged until that is so.

        origin: which weights these are, `sha256=...` of files, as tables have it.
        """
        self.origin = origin
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.backbone, self.name, self.dim, self.cell = backbone.eval().to(device), name, dim, cell
        self.device = torch.device(device)

    def grid(self, height: int, width: int) -> Pixels:
        """Rows and columns of cells; raises ValueError when the size does not divide into them."""
        if height % self.cell or width % self.cell:
            raise ValueError(
                f"{self.name}: pictures of {height} x {width} pixels do not divide into cells of {self.cell} pixels: "
                "set image_size to multiples of it"
            )
        return height // self.cell, width // self.cell

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See Extractor."""
        h, w = self.grid(images.shape[1], images.shape[2])
        x = normalise(images.to(self.device))
        size = (h * self.backbone.stride, w * self.backbone.stride)
        if x.shape[2:] != size:
            x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        features = self.backbone.eval()(x)
        return features.cls.float(), features.patches.float()


class OurBackbone(FrozenBackbone):
    """One of our backbones as an extractor."""

    def __init__(self, backbone: Backbone, name: str, origin: str = "") -> None:
        super().__init__(backbone, name, dim=backbone.architecture.dim, cell=backbone.stride, origin=origin)


def open_backbone(reference: str, *, cell: int = 16) -> FrozenBackbone:
    """A frozen backbone by name, on the GPU if there is one.

    `timm:NAME[:FILE]` and `hf:NAME[:FILE]` are those of sapiens2.model.foreign, brought to `cell` pixels per patch
    whatever their own; everything else is the path or URI of a file of ours or of the release. What lies in files has
    the start of its sha256 in its name. Raises ValueError for an unknown name and FileNotFoundError without a file.
    """
    kind, colon, _ = reference.partition(":")
    if colon and kind in LIBRARIES:
        foreign = build_foreign(reference)
        return FrozenBackbone(foreign, shown_name(foreign.name), dim=foreign.dim, cell=cell, origin=_origin(foreign))
    if colon and kind not in ("file", "s3") and not Path(reference).exists():
        raise ValueError(f"unknown backbone {reference!r}: use timm:NAME, hf:NAME, or the path of a .safetensors file")
    found, sha256 = load_backbone(reference), file_sha256(reference)
    found.name, found.origin = f"{found.name} ({sha256[:SHOWN]})", f"sha256={sha256}"
    return found


def _origin(backbone: ForeignBackbone) -> str:
    """The sha256 of the files of a backbone, or of the tensors themselves where a library keeps the files."""
    if backbone.name.file == RANDOM:
        return "random weights"
    digest = local_digest(backbone.name)
    return f"sha256={digest}" if digest else f"state_sha256={state_digest(backbone.net)}"


def load_backbone(path: str, name: str = "", architecture: Architecture | None = None) -> OurBackbone:
    """The backbone in a safetensors file; without its architecture, the size that its shapes tell."""
    state = read_state(path)
    size, windows = size_of(state, path) if architecture is None else (architecture, _has_tokenizer(state))
    with torch.device("meta"):
        backbone = build_backbone(size, window_tokenizer=windows)
    load_state(backbone, state, where=path)
    return OurBackbone(backbone, name or Path(path).stem)


def _has_tokenizer(state: dict[str, Tensor]) -> bool:
    return any(name.removeprefix("backbone.").startswith("tokenizer.") for name in state)


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
            return size, _has_tokenizer(state)
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
