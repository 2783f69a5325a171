"""timm's side of `sapiens2.model.foreign`."""

from __future__ import annotations

import inspect
import sys
from typing import Any, ClassVar

from torch import Tensor, nn

from sapiens2.model.foreign import CLASSIFIERS, IMAGENET, ForeignBackbone, first_line, read_file, refuse_misfit
from sapiens2.model.foreign_names import RANDOM, ForeignName


class TimmBackbone(ForeignBackbone):
    """A timm model that offers `forward_intermediates`."""

    NORMED: ClassVar[tuple[bool, ...]] = (True, False)  # some, like Hiera, have no norm behind the last map

    def tokens(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        net: Any = self.net
        asked: dict[str, Any] = {"indices": 1, "intermediates_only": True, "output_fmt": "NCHW", "norm": self.normed}
        known = inspect.signature(net.forward_intermediates).parameters
        prefix = "return_prefix_tokens" in known and getattr(net, "num_prefix_tokens", 0) > 0
        if prefix:
            asked["return_prefix_tokens"] = True
        last = net.forward_intermediates(images, **asked)[-1]
        if not prefix:
            return None, last
        patches, tokens = last
        return (tokens[:, 0] if getattr(net, "cls_token", None) is not None else None), patches


def make_timm(name: ForeignName, file: str | None, kept: dict[str, Any]) -> TimmBackbone:
    """The model of a name; file: as in `ForeignName`; kept: its `structure`, where that is known. Raises ValueError."""
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
        raise ValueError(
            f"timm:{name.name} cannot be made ({first_line(error)}): give a local file as timm:{name.name}:FILE"
        ) from error
    if not hasattr(net, "forward_intermediates"):
        raise ValueError(f"timm's {name.name} gives no maps (no forward_intermediates): choose another model")
    if file not in (None, RANDOM):
        _load(net, str(file))
    about = net.pretrained_cfg or {}
    size = about.get("input_size")
    return TimmBackbone(
        net,
        name,
        patch=net.feature_info[-1]["reduction"],
        mean=kept.get("mean") or about.get("mean", IMAGENET[0]),
        std=kept.get("std") or about.get("std", IMAGENET[1]),
        own=(size[1], size[2]) if size else None,
    )


def _load(net: nn.Module, file: str) -> None:
    """Loads a file strictly, but for the classifier that a backbone does not have.

    timm's own translation of published files is applied where the model has one.
    """
    state = read_file(file)
    translate = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    state = translate(state, net) if translate else state
    wanted = net.state_dict()
    state = {name: t for name, t in state.items() if name in wanted or not name.startswith(CLASSIFIERS)}
    wrong = set(wanted.keys() ^ state.keys())
    wrong |= {name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape}
    refuse_misfit(file, net, wrong)
    net.load_state_dict(state, strict=True)
