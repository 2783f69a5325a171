"""Backbones of other people, from timm or transformers, behind the interface of ours: the baselines to compare with.

A name is `timm:NAME[:FILE]` or `hf:NAME[:FILE]`. FILE is a local safetensors or torch file, loaded strictly; the word
`random` for fresh weights; or nothing, for what the library itself finds or downloads. NAME of `hf:` is a local folder
with a config.json, a hub name, or a model type such as `dinov2`. Whatever its patch, a backbone answers on the grid of
16-pixel patches: the picture is resized so that patch 14 gives exactly that grid, other strides are interpolated.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapiens2.model.backbone import Features
from sapiens2.model.foreign_names import GRID_STRIDE, RANDOM, ForeignName, parse_name
from sapiens2.model.normalise import MEAN, STD

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLASSIFIERS = ("head.", "fc.", "classifier.")


class ForeignBackbone(nn.Module):
    """`net` behind the interface of `Backbone`: normalised images in, `Features` on the common grid out.

    net: the module as its library made it; dim: channels; patch: pixels per token; mean, std: of pixels in 0..1.
    """

    def __init__(self, net: nn.Module, name: ForeignName, *, dim: int, patch: int, mean: Any, std: Any) -> None:
        super().__init__()
        self.net, self.name, self.dim, self.patch = net, name, dim, patch
        # Ours arrive as (x - MEAN) / STD with x in 0..255: one affine map makes theirs of it.
        ours = [torch.tensor(values) / 255 for values in (MEAN, STD)]
        theirs = [torch.tensor(values) for values in (mean, std)]
        self.register_buffer("gain", (ours[1] / theirs[1]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", ((ours[0] - theirs[0]) / theirs[1]).view(1, 3, 1, 1), persistent=False)

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
        if token != GRID_STRIDE:
            x = F.interpolate(x, (h * token, w * token), mode="bicubic", antialias=True)
        cls, patches = self.tokens(x)
        if patches.shape[-2:] != (h, w):
            patches = F.interpolate(patches, (h, w), mode="bilinear", antialias=patches.shape[-1] > w)
        cls = patches.mean((-2, -1)) if cls is None else cls
        return Features(cls, patches.new_zeros(len(patches), 0, self.dim), patches, ())

    def tokens(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        """Class token [B, D] or None, and the last map [B, D, h', w'] behind the final norm; images as theirs."""
        raise NotImplementedError

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


class TimmBackbone(ForeignBackbone):
    """A timm model that offers `forward_intermediates`."""

    def tokens(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        net: Any = self.net
        asked: dict[str, Any] = {"indices": 1, "intermediates_only": True, "output_fmt": "NCHW", "norm": True}
        known = inspect.signature(net.forward_intermediates).parameters
        prefix = "return_prefix_tokens" in known and getattr(net, "num_prefix_tokens", 0) > 0
        if prefix:
            asked["return_prefix_tokens"] = True
        last = net.forward_intermediates(images, **asked)[-1]
        if not prefix:
            return None, last
        patches, tokens = last
        return (tokens[:, 0] if getattr(net, "cls_token", None) is not None else None), patches


class HfBackbone(ForeignBackbone):
    """A transformers vision model: its last hidden state, prefix tokens in front."""

    def tokens(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        h, w = (side // self.patch for side in images.shape[-2:])
        known = inspect.signature(self.net.forward).parameters
        asked: dict[str, Any] = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in known else {}
        if "noise" in known:  # a masked autoencoder shuffles its tokens by this; sorted noise leaves their order
            asked["noise"] = torch.arange(h * w, device=images.device).expand(len(images), -1)
        hidden = self.net(pixel_values=images, **asked).last_hidden_state
        if hidden.ndim == 4:
            return None, hidden
        prefix = hidden.shape[1] - h * w
        patches = hidden[:, prefix:].transpose(1, 2).unflatten(2, (h, w))
        return (hidden[:, 0] if prefix else None), patches


def build_foreign(text: str, *, weights: bool = True) -> ForeignBackbone:
    """The backbone that `timm:NAME[:FILE]` or `hf:NAME[:FILE]` names, on the default device.

    weights=False builds the structure only, with fresh weights, and looks for no file. Raises ValueError for a name
    that the library does not know, weights that do not fit, or a library that is not installed.
    """
    name = parse_name(text if weights else ":".join(text.split(":")[:2]))
    file = name.file if weights else RANDOM
    try:
        made = _timm(name, file) if name.library == "timm" else _hf(name, file)
    except ImportError as error:
        package = "timm" if name.library == "timm" else "transformers"
        raise ValueError(f"{text!r} needs the package {package}: pip install {package}") from error
    if file not in (None, RANDOM):
        _load(made.net, str(file))
    return made


def _timm(name: ForeignName, file: str | None) -> ForeignBackbone:
    import timm

    if not timm.is_model(name.name):
        near = ", ".join(timm.list_models(f"*{name.name.split('_')[0]}*")[:3])
        raise ValueError(f"timm has no model {name.name!r}{f'; near it: {near}' if near else ''}")
    asked: dict[str, Any] = {"pretrained": file is None, "num_classes": 0}
    try:
        try:  # vision transformers with learned positions must be told to take any size
            net: Any = timm.create_model(name.name, dynamic_img_size=True, **asked)
        except TypeError:
            net = timm.create_model(name.name, **asked)
    except (OSError, RuntimeError) as error:
        raise ValueError(_unavailable(name, error)) from error
    if not hasattr(net, "forward_intermediates"):
        raise ValueError(f"timm's {name.name} gives no maps (no forward_intermediates): choose another model")
    about = net.pretrained_cfg or {}
    return TimmBackbone(
        net,
        name,
        dim=net.feature_info[-1]["num_chs"],
        patch=net.feature_info[-1]["reduction"],
        mean=about.get("mean", IMAGENET[0]),
        std=about.get("std", IMAGENET[1]),
    )


def _hf(name: ForeignName, file: str | None) -> ForeignBackbone:
    import transformers

    try:
        if name.name in transformers.CONFIG_MAPPING:
            config: Any = transformers.AutoConfig.for_model(name.name)
        else:
            config = transformers.AutoConfig.from_pretrained(name.name)
        config = getattr(config, "vision_config", config)
        if hasattr(config, "mask_ratio"):
            config.mask_ratio = 0.0  # a masked autoencoder as an encoder sees everything
        if file is None:
            net: Any = transformers.AutoModel.from_pretrained(name.name, config=config)
        else:
            net = transformers.AutoModel.from_config(config)
    except (OSError, ValueError) as error:
        raise ValueError(_unavailable(name, error)) from error
    mean, std = _hf_normalisation(name.name, config.model_type)
    dim = getattr(config, "hidden_size", None) or config.hidden_sizes[-1]
    patch = getattr(config, "patch_size", 32)
    return HfBackbone(net, name, dim=dim, patch=patch if isinstance(patch, int) else patch[0], mean=mean, std=std)


def _hf_normalisation(name: str, kind: str) -> tuple[Any, Any]:
    """Mean and std as a folder's preprocessor_config.json says, else as the kind of model is used to."""
    about = Path(name) / "preprocessor_config.json"
    if about.is_file():
        said = json.loads(about.read_text())
        return said.get("image_mean", IMAGENET[0]), said.get("image_std", IMAGENET[1])
    if "siglip" in kind or kind in ("vit", "beit", "deit"):
        return HALF
    return OPENAI if "clip" in kind else IMAGENET


def _unavailable(name: ForeignName, error: Exception) -> str:
    first = (str(error) or type(error).__name__).splitlines()[0][:200]
    return f"{name.library}:{name.name} cannot be made ({first}): give a local file as {name.library}:{name.name}:FILE"


def _load(net: nn.Module, file: str) -> None:
    """Loads a safetensors or torch file strictly, but for the classifier that a backbone does not have.

    timm's own translation of published files is applied where the model has one.
    """
    from safetensors.torch import load_file

    safe = file.endswith(".safetensors")
    state = load_file(file) if safe else torch.load(file, weights_only=True, map_location="cpu")
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state.get(key), dict) else state
    translate = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    state = translate(state, net) if translate else state
    wanted = net.state_dict()
    state = {name: t for name, t in state.items() if name in wanted or not name.startswith(CLASSIFIERS)}
    wrong = sorted(wanted.keys() ^ state.keys())
    wrong += sorted(name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape)
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(
            f"{file} does not fit {type(net).__name__}: {', '.join(wrong[:5])}{more} "
            "are missing, left over or of another shape; give the file of this very model"
        )
    net.load_state_dict(state, strict=True)


def state_digest(net: nn.Module) -> str:
    """sha256 over the sorted names and bytes of a module's state."""
    total = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        total.update(name.encode() + b"\0")
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
