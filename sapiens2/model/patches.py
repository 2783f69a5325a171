"""Backbones of one patch size as backbones of another."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

WEIGHT = "patch_embed.projection.weight"


def with_patches(state: Mapping[str, Tensor], patch: int) -> dict[str, Tensor]:
    """Weights of a backbone whose patches are spread over `patch` pixels, a multiple of what they were.

    Exact: of a picture it says what the given one says of the picture shrunk by block means. The number of tokens of a
    picture falls accordingly. Raises ValueError when `patch` is no multiple.
    """
    weight = state[WEIGHT]  # [D, 3, p, p]
    before = weight.shape[-1]
    if patch % before:
        raise ValueError(f"patches of {before} pixels cannot be spread over {patch}: use a multiple of {before}")
    factor = patch // before
    wide = weight.repeat_interleave(factor, -1).repeat_interleave(factor, -2) / factor**2
    return dict(state) | {WEIGHT: wide.contiguous()}
