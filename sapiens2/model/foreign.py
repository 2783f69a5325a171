"""Backbones of other people, from timm or transformers, behind the interface of ours: the baselines to compare with.

A name is `timm:NAME[:FILE]` or `hf:NAME[:FILE]`. FILE is a local safetensors or torch file, loaded strictly; the word
`random` for fresh weights; or nothing, for what the library itself finds or downloads. NAME of `hf:` is a local folder
with a config.json, a hub name, or a model type such as `dinov2`. Whatever its patch, a backbone answers on the grid of
16-pixel patches: the picture is resized so that patch 14 gives exactly that grid, other strides are interpolated, and
a net that takes one size only sees the picture squeezed to that size. The libraries' sides are in `foreign_timm` and
`foreign_hf`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapiens2.model.backbone import Features
from sapiens2.model.foreign_names import GRID_STRIDE, RANDOM, ForeignName, parse_name
from sapiens2.model.normalise import MEAN, STD

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLASSIFIERS = ("head.", "fc.", "classifier.")
TRIED_PX = 64  # shorter side of the picture that a net is tried with: two cells of the coarsest stride


class ForeignBackbone(nn.Module):
    """`net` behind the interface of `Backbone`: normalised images in, `Features` on the common grid out.

    dim: channels and patch: pixels per token, both as the net itself answers; fixed: the one size that it takes, or
    None. Raises ValueError for a net that gives no maps.
    """

    NORMED: ClassVar[tuple[bool, ...]] = (True,)  # whether to ask for the last map behind the final norm, as tried

    def __init__(
        self,
        net: nn.Module,
        name: ForeignName,
        *,
        patch: int,
        mean: Any,
        std: Any,
        own: tuple[int, int] | None = None,
    ) -> None:
        """net: as its library made it; patch: pixels per token as it says; mean, std: of pixels in 0..1; own: the size
        that it was made for, if it has one."""
        super().__init__()
        self.net, self.name, self.patch = net, name, patch
        self.mean, self.std = [float(value) for value in mean], [float(value) for value in std]
        # Ours arrive as (x - MEAN) / STD with x in 0..255: one affine map makes theirs of it.
        ours = [torch.tensor(values) / 255 for values in (MEAN, STD)]
        theirs = [torch.tensor(values) for values in (self.mean, self.std)]
        self.register_buffer("gain", (ours[1] / theirs[1]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", ((ours[0] - theirs[0]) / theirs[1]).view(1, 3, 1, 1), persistent=False)
        self._try(own)

    def _try(self, own: tuple[int, int] | None) -> None:
        """One small pass in each way that there is, until one succeeds: what libraries say of a net's width, stride
        and sizes does not hold for all."""
        net, why = self.net, ""
        shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
        ways = [(size, normed) for size in dict.fromkeys((None, own)) for normed in self.NORMED]
        for size, normed in ways:
            self.fixed, self.normed = size, normed
            self.net = copy.deepcopy(net, dict(shared)).eval()  # Swin keeps the windows of a pass for the next one
            try:
                with torch.no_grad():
                    self.dim, self.patch = self.measured()
                break
            except Exception as error:  # whatever somebody else's code raises; told below
                why = f"{why}; {first_line(error)}" if why else first_line(error)
            finally:
                self.net = net
        else:
            raise ValueError(
                f"{self.name.library}:{self.name.name} gives no maps ({why}): choose another model, one that takes "
                "pictures of any size or of one known size"
            )

    def measured(self) -> tuple[int, int]:
        """Channels, and pixels per token, of what the net gives for a small picture (for its one size)."""
        height, width = self.fixed or (self.tried_px, 2 * self.tried_px)
        _, maps = self.tokens(self.blank(height, width))
        return maps.shape[1], height // maps.shape[2]

    @property
    def tried_px(self) -> int:
        """Shorter side of a small picture that divides into tokens."""
        return 4 * self.patch if 8 < self.patch < GRID_STRIDE else max(TRIED_PX, self.patch)

    def blank(self, height: int, width: int) -> Tensor:
        """An empty picture [1, 3, height, width] where the net is."""
        return next(self.net.parameters()).new_zeros(1, 3, height, width)

    @property
    def stride(self) -> int:
        """Pixels per cell of the grid that the heads see."""
        return GRID_STRIDE

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the common grid; raises ValueError when the size does not divide."""
        if height <= 0 or width <= 0 or height % GRID_STRIDE or width % GRID_STRIDE:
            raise ValueError(
                f"an image of {height} x {width} pixels does not divide into cells of {GRID_STRIDE} pixels"
            )
        return height // GRID_STRIDE, width // GRID_STRIDE

    def forward(self, images: Tensor) -> Features:
        """images: [B, 3, H, W] normalised as for our backbone -> Features with patches [B, D, H / 16, W / 16].

        Registers are empty; without a class token, cls is the mean of the patches.
        """
        h, w = self.grid(*images.shape[-2:])
        x = images * self.gain + self.offset  # type: ignore[operator]
        # Patches of up to 16 pixels: one token a cell. Coarser or finer nets see the picture as it is.
        token = self.patch if 8 < self.patch <= GRID_STRIDE else GRID_STRIDE
        size = self.fixed or (h * token, w * token)
        if x.shape[-2:] != size:
            x = F.interpolate(x, size, mode="bicubic", antialias=True)
        cls, patches = self.tokens(x)
        if patches.shape[-2:] != (h, w):
            finer = patches.shape[-1] > w or patches.shape[-2] > h
            patches = F.interpolate(patches, (h, w), mode="bilinear", antialias=finer)
        cls = patches.mean((-2, -1)) if cls is None else cls
        return Features(cls, patches.new_zeros(len(patches), 0, self.dim), patches, ())

    def tokens(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        """Class token [B, D] or None, and the last map [B, D, h', w'] behind the final norm; images as theirs."""
        raise NotImplementedError

    def structure(self) -> dict[str, Any]:
        """All that `build_foreign` needs, beside the name, to make this net again without the library's files."""
        return {"mean": self.mean, "std": self.std}

    def described(self) -> dict[str, Any]:
        """What a manifest should hold: library, name, file, patch, width, parameters and the weights' digest."""
        return {
            "library": self.name.library,
            "name": self.name.name,
            "file": self.name.file,
            "patch": self.patch,
            "dim": self.dim,
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "weights_sha256": state_digest(self.net),
        }


def build_foreign(text: str, *, weights: bool = True, structure: dict[str, Any] | None = None) -> ForeignBackbone:
    """The backbone that `timm:NAME[:FILE]` or `hf:NAME[:FILE]` names, on the default device.

    weights=False builds the structure only, with fresh weights, and looks for no file; structure: what
    `ForeignBackbone.structure` told of it, for which NAME need not be there any more. Raises ValueError for a name that
    the library does not know, weights that do not fit, a net that gives no maps, or a library that is not installed.
    """
    name = parse_name(text, check=weights)
    file = name.file if weights else RANDOM
    try:
        if name.library == "timm":
            from sapiens2.model.foreign_timm import make_timm

            return make_timm(name, file, structure or {})
        from sapiens2.model.foreign_hf import make_hf

        return make_hf(name, file, structure or {})
    except ImportError as error:
        package = "timm" if name.library == "timm" else "transformers"
        raise ValueError(f"{text!r} needs the package {package}: pip install {package}") from error


def read_file(file: str) -> dict[str, Any]:
    """The tensors in a safetensors or torch file, by name."""
    from safetensors.torch import load_file

    safe = file.endswith(".safetensors")
    state = load_file(file) if safe else torch.load(file, weights_only=True, map_location="cpu")
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state.get(key), dict) else state
    return dict(state)


def refuse_misfit(where: str, net: nn.Module, wrong: Iterable[str]) -> None:
    """Raises ValueError naming the weights that are missing, left over or of another shape, if there are any."""
    names = sorted(wrong)
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(
            f"{where} does not fit {type(net).__name__}: {', '.join(names[:5])}{more} "
            "are missing, left over or of another shape; give the weights of this very model"
        )


def first_line(error: Exception) -> str:
    """Of an error's message, at most 200 letters."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def state_digest(net: nn.Module) -> str:
    """sha256 over the sorted names and bytes of a module's state."""
    total = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        total.update(name.encode() + b"\0")
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
