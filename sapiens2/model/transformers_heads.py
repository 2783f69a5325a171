"""Task heads under the names of the `transformers` port, which has those of pose, segmentation, normals and pointmap.

The port numbers layers where the release counts every module of a sequence, keeps the scale branch outside the head,
and calls every last layer `predictor`.
"""

from __future__ import annotations

import re

from torch import Tensor

from sapiens2.model.transformers_names import from_transformers, to_transformers

_STEP = 3  # convolution, norm, activation
# Ours to theirs inside a task model; {n} is a layer of ours and {i} its number there.
_HEAD = (
    (r"decode_head\.deconv_layers\.(\d+)\.", "decode_head.upsample_layers.{i}.convolution."),
    (r"decode_head\.conv_layers\.(\d+)\.", "decode_head.conv_layers.{i}.convolution."),
    (r"decode_head\.scale_conv_layers\.(\d+)\.", "scale_head.conv_layers.{i}.convolution."),
    (r"decode_head\.upsample_blocks\.(\d+)\.0\.", "decode_head.upsample_layers.{n}.convolution."),
    (r"decode_head\.input_conv\.0\.", "decode_head.input_conv.convolution."),
    (r"decode_head\.scale_final_layer\.1\.", "scale_head.predictor.block1.layers.0."),
    (r"decode_head\.scale_final_layer\.3\.", "scale_head.predictor.block2.layers.0."),
    (r"decode_head\.scale_final_layer\.5\.", "scale_head.predictor.proj."),
    (r"decode_head\.conv_(?:pose|seg|normal|pointmap)\.", "decode_head.predictor."),
)
_BACK = (
    (r"decode_head\.conv_layers\.(\d+)\.convolution\.", "decode_head.conv_layers.{k}."),
    (r"scale_head\.conv_layers\.(\d+)\.convolution\.", "decode_head.scale_conv_layers.{k}."),
    (r"decode_head\.input_conv\.convolution\.", "decode_head.input_conv.0."),
    (r"scale_head\.predictor\.block1\.layers\.0\.", "decode_head.scale_final_layer.1."),
    (r"scale_head\.predictor\.block2\.layers\.0\.", "decode_head.scale_final_layer.3."),
    (r"scale_head\.predictor\.proj\.", "decode_head.scale_final_layer.5."),
)
_UPSAMPLE = r"decode_head\.upsample_layers\.(\d+)\.convolution\."
_BODY = "model."


def is_transformers_task(state: dict[str, Tensor]) -> bool:
    """Whether a state dict is that of one of the port's task models."""
    return f"{_BODY}embeddings.cls_token" in state


def to_transformers_task(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A task model's state dict under the port's names; raises ValueError for a part that the port does not have."""
    body = {n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")}
    out = {_BODY + name: tensor for name, tensor in to_transformers(body).items()}
    for name, tensor in state.items():
        if not name.startswith("backbone."):
            out[_renamed(name, _HEAD)] = tensor
    return out


def from_transformers_task(state: dict[str, Tensor], last: str) -> dict[str, Tensor]:
    """The inverse. `last` is the name of our head's last layer, `conv_pose` for instance, which the port forgets.

    Names that are not the port's stay as they are, for the loader to complain about.
    """
    body = {n.removeprefix(_BODY): t for n, t in state.items() if n.startswith(_BODY)}
    out = {f"backbone.{name}": tensor for name, tensor in from_transformers(body).items()}
    shuffled = any(name.startswith("decode_head.input_conv.") for name in state)
    up = "decode_head.upsample_blocks.{n}.0." if shuffled else "decode_head.deconv_layers.{k}."
    table = (*_BACK, (_UPSAMPLE, up), (r"decode_head\.predictor\.", f"decode_head.{last}."))
    for name, tensor in state.items():
        if not name.startswith(_BODY):
            out[_renamed(name, table, strict=False)] = tensor
    return out


def _renamed(name: str, table: tuple[tuple[str, str], ...], strict: bool = True) -> str:
    for pattern, template in table:
        found = re.match(pattern, name)
        if found:
            n = int(found[1]) if found.groups() else 0
            return template.format(n=n, i=n // _STEP, k=n * _STEP) + name[found.end() :]
    if strict:
        raise ValueError(f"{name} has no place in the transformers port (it has no albedo and no heads of our own)")
    return name
