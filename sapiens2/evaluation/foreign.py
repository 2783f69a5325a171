"""Backbones of other people as frozen extractors, each with its own normalisation and patch size.

timm and transformers are imported when one is asked for. Pictures whose sides do not divide into the backbone's patches
are resized to the nearest size that does, so that the backbone sees all of them.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Pixels = tuple[int, int]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class _Foreign:
    """Resizing and normalisation around a network."""

    name: str
    dim: int

    def __init__(self, network: torch.nn.Module, patch: int, mean: Any, std: Any) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network, self.patch = network.eval().requires_grad_(False).to(device), patch
        self.mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(std, device=device).view(1, 3, 1, 1)

    def grid(self, height: int, width: int) -> Pixels:
        """Rows and columns of its patch map for images of this size."""
        return max(1, round(height / self.patch)), max(1, round(width / self.patch))

    def prepared(self, images: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] -> normalised [B, 3, H', W'], sides divisible by the patch."""
        x = images.to(self.mean.device).movedim(-1, 1).float() / 255
        h, w = self.grid(x.shape[2], x.shape[3])
        size = (h * self.patch, w * self.patch)
        if x.shape[2:] != size:
            x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        return (x - self.mean) / self.std

    def split(self, tokens: Tensor, prefix: int, has_class: bool, grid: Pixels) -> tuple[Tensor, Tensor]:
        """Tokens [B, prefix + h w, D] -> class vectors (the mean patch without a class token) and patch maps."""
        patches = tokens[:, prefix:].transpose(1, 2).unflatten(2, grid).float()
        return (tokens[:, 0].float() if has_class else patches.mean((2, 3))), patches


class TimmBackbone(_Foreign):
    """`timm:NAME` or `timm:NAME@FILE`: a vision transformer or a convolutional network of timm."""

    def __init__(self, name: str, *, pretrained: bool = True) -> None:
        """Raises ValueError for a name that timm does not know and for weights that cannot be had."""
        import timm

        model, _, file = name.partition("@")
        if not timm.is_model(model):
            near = timm.list_models(f"*{model.split('_')[0]}*")[:4]
            hint = f"; near it are {', '.join(near)}" if near else ""
            raise ValueError(f"timm knows no model {model!r}{hint}")
        if file and not Path(file).is_file():
            raise ValueError(f"there are no weights at {file} for timm:{model}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = _create(timm, model, pretrained and not file, file)
        config = network.pretrained_cfg
        # Of all models whose last map is what forward_features gives; for plain transformers it is the patch.
        super().__init__(network, int(network.feature_info[-1]["reduction"]), config["mean"], config["std"])
        self.name, self.dim = f"timm:{model}", int(network.num_features)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See Extractor."""
        out = self.network.forward_features(self.prepared(images))  # type: ignore[operator]
        if out.ndim == 4:  # convolutional: [B, C, h, w], some transformers [B, h, w, C]
            maps = out.float() if out.shape[1] == self.dim else out.movedim(-1, 1).float()
            return maps.mean((2, 3)), maps
        prefix = int(getattr(self.network, "num_prefix_tokens", 0))
        grid = self.grid(images.shape[1], images.shape[2])
        return self.split(out, prefix, bool(getattr(self.network, "cls_token", None) is not None), grid)


def _create(timm: Any, model: str, pretrained: bool, file: str) -> Any:
    more: dict[str, Any] = {"num_classes": 0}
    if file:
        more["pretrained_cfg_overlay"] = {"file": file}
    try:
        try:
            return timm.create_model(model, pretrained=pretrained or bool(file), dynamic_img_size=True, **more)
        except TypeError:  # not a transformer of fixed position embeddings
            return timm.create_model(model, pretrained=pretrained or bool(file), **more)
    except (OSError, RuntimeError) as error:
        where = file or "the model hub"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"weights of timm:{model} cannot be read from {where} ({reason}): give a local file, timm:{model}@FILE"
        ) from error


class HfBackbone(_Foreign):
    """`hf:NAME` or `hf:FOLDER`: a vision transformer of the transformers library."""

    def __init__(self, name: str) -> None:
        """Raises ValueError without the library, for an unknown name and for a model that takes no images."""
        try:
            from transformers import AutoModel
        except ImportError as error:
            raise ValueError("hf: backbones need the transformers package: `pip install transformers`") from error
        try:
            network = AutoModel.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"no weights for hf:{name} ({str(error).splitlines()[0]}): give a model's name, or a folder that "
                "`save_pretrained` wrote"
            ) from error
        config = network.config
        patch = getattr(config, "patch_size", None)
        if patch is None:
            raise ValueError(
                f"hf:{name} has no patch size in its configuration: only vision transformers can be probed"
            )
        mean, std = _statistics(name)
        super().__init__(network, int(patch[0] if isinstance(patch, list | tuple) else patch), mean, std)
        self.name, self.dim = f"hf:{Path(name).name}", int(config.hidden_size)
        self.registers = int(getattr(config, "num_register_tokens", 0) or 0)
        takes = inspect.signature(network.forward).parameters
        self.more = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See Extractor."""
        x = self.prepared(images)
        tokens = self.network(pixel_values=x, **self.more).last_hidden_state
        h, w = self.grid(images.shape[1], images.shape[2])
        prefix = tokens.shape[1] - h * w
        if prefix not in (0, 1, 1 + self.registers):
            raise ValueError(f"{self.name} gives {tokens.shape[1]} tokens for {h} x {w} patches: it cannot be probed")
        return self.split(tokens, prefix, prefix > 0, (h, w))


def _statistics(name: str) -> tuple[Any, Any]:
    """Mean and deviation that the model's own preprocessing states; ImageNet's where it states none."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError):
        return IMAGENET
    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    return (mean, std) if mean and std else IMAGENET
