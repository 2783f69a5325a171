"""transformers' side of `sapiens2.model.foreign`."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sapiens2.model.foreign import CLASSIFIERS, IMAGENET, ForeignBackbone, first_line, read_file, refuse_misfit
from sapiens2.model.foreign_files import PREPROCESSOR, is_folder
from sapiens2.model.foreign_names import RANDOM, ForeignName

OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
UNUSED = "pooler."
"""Behind the last hidden state: files of classifiers have none, and no map depends on it."""
STAGES = 6  # of a net that halves its maps, at most
PREFIX = 16  # the most tokens in front of the patches that a net is believed to have; more are of another kind


class HfBackbone(ForeignBackbone):
    """A transformers vision model: its last hidden state, prefix tokens in front.

    step: pixels per token and prefix: tokens in front, where tokens come as a list.
    """

    step: int
    prefix: int

    def measured(self) -> tuple[int, int]:
        """See ForeignBackbone; where tokens come as a list, their step and prefix are found first."""
        side = self.tried_px
        height, width = self.fixed or (side, side)
        if counted := self._count(height, width):
            if self.fixed:  # its patch, or that of a later stage of a net that halves its maps
                steps = [self.patch << stage for stage in range(STAGES)]
                self.step = next((s for s in steps if (height // s) * (width // s) <= counted), self.patch)
            else:  # twice the width has twice the patches, and the same prefix
                more = math.isqrt(max(self._count(height, 2 * width) - counted, 0))
                self.step = side // more if more else side
            self.prefix = counted - (height // self.step) * (width // self.step)
            if not 0 <= self.prefix <= PREFIX:
                raise ValueError(f"{counted} tokens of {height} x {width} pixels make no map")
        return super().measured()

    def _count(self, height: int, width: int) -> int:
        """Tokens of a picture of this size, or 0 where they come as a map."""
        hidden = self._hidden(self.blank(height, width))
        return 0 if hidden.ndim == 4 else hidden.shape[1]

    def _hidden(self, images: Tensor) -> Tensor:
        known = inspect.signature(self.net.forward).parameters
        asked: dict[str, Any] = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in known else {}
        if "noise" in known:  # a masked autoencoder shuffles its tokens by this; sorted noise leaves their order
            count = math.prod(side // self.patch for side in images.shape[-2:])
            asked["noise"] = torch.arange(count, device=images.device).expand(len(images), -1)
        hidden: Tensor = self.net(pixel_values=images, **asked).last_hidden_state
        return hidden

    def tokens(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        hidden = self._hidden(images)
        if hidden.ndim == 4:
            return None, hidden
        h, w = (math.ceil(side / self.step) for side in images.shape[-2:])  # Swin fills up what does not divide,
        if h * w != hidden.shape[1] - self.prefix:  # others cut it off
            h, w = (side // self.step for side in images.shape[-2:])
        patches = hidden[:, self.prefix :].transpose(1, 2).unflatten(2, (h, w))
        return (hidden[:, 0] if self.prefix else None), patches

    def structure(self) -> dict[str, Any]:
        """With the library's own configuration."""
        net: Any = self.net
        return super().structure() | {"config": json.loads(net.config.to_json_string(use_diff=False))}


def make_hf(name: ForeignName, file: str | None, kept: dict[str, Any]) -> HfBackbone:
    """The model of a name; file: as in `ForeignName`; kept: its `structure`, where that is known. Raises ValueError."""
    try:
        config = _config(name, kept.get("config"))
        net = _net(name, file, config)
    except OSError as error:
        raise ValueError(
            f"hf:{name.name} cannot be made ({first_line(error)}): give a folder with a config.json, and the "
            "weights in it or as hf:FOLDER:FILE; without weights a model type will do, like hf:dinov2:random"
        ) from error
    mean, std = (kept["mean"], kept["std"]) if kept else _normalisation(name.name, config.model_type)
    patch, size = getattr(config, "patch_size", None) or 32, getattr(config, "image_size", None)
    return HfBackbone(
        net,
        name,
        patch=patch if isinstance(patch, int) else patch[0],
        mean=mean,
        std=std,
        own=None if size is None else (size, size) if isinstance(size, int) else (size[0], size[1]),
    )


def _config(name: ForeignName, kept: dict[str, Any] | None) -> Any:
    """The library's configuration of the picture's side of a model."""
    import transformers

    try:
        if kept:
            config: Any = transformers.CONFIG_MAPPING[kept["model_type"]].from_dict(kept)
        elif name.name in transformers.CONFIG_MAPPING and not is_folder(name.name):
            config = transformers.AutoConfig.for_model(name.name)
        else:
            config = transformers.AutoConfig.from_pretrained(name.name)
    except (ValueError, KeyError) as error:
        raise OSError(first_line(error)) from error
    config = getattr(config, "vision_config", config)
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0  # a masked autoencoder as an encoder sees everything
    return config


def _net(name: ForeignName, file: str | None, config: Any) -> nn.Module:
    """The net with the weights of `file`, in float32 whatever they are kept in. Raises OSError, ValueError."""
    import transformers

    wide: dict[str, Any] = {"dtype": torch.float32}
    if file == RANDOM:
        net: nn.Module = transformers.AutoModel.from_config(config, **wide)
        return net
    # The library renames what older versions, and its own save_pretrained, call otherwise: so it has to load.
    asked = wide | {"config": config, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        if file is None:
            net, told = transformers.AutoModel.from_pretrained(name.name, **asked)
        else:
            with torch.device("meta"):
                kind: Any = type(transformers.AutoModel.from_config(config))
            net, told = kind.from_pretrained(None, state_dict=read_file(file), **asked)
    except ValueError as error:
        raise OSError(first_line(error)) from error
    wrong = {key for key in told["missing_keys"] if not key.startswith(UNUSED)}
    wrong |= {each[0] for each in told["mismatched_keys"]}
    if file is not None:
        wrong |= {key for key in told["unexpected_keys"] if not key.startswith(CLASSIFIERS)}
    refuse_misfit(file or f"hf:{name.name}", net, wrong)
    return net


def _normalisation(name: str, kind: str) -> tuple[Any, Any]:
    """Mean and std as a folder's preprocessor_config.json says, else as the kind of model is used to."""
    about = Path(name) / PREPROCESSOR
    if about.is_file():
        said = json.loads(about.read_text())
        return said.get("image_mean", IMAGENET[0]), said.get("image_std", IMAGENET[1])
    if "siglip" in kind or kind in ("vit", "beit", "deit"):
        return HALF
    return OPENAI if "clip" in kind else IMAGENET
