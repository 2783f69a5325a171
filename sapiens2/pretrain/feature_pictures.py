"""What a backbone's features show, as pictures: their main directions, what stands out, where the class token looks."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sapiens2.model.backbone import Backbone
from sapiens2.model.block import Attention
from sapiens2.model.normalise import normalise
from sapiens2.model.rope import RopeRows, rotate

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]
PERCENTILES = (1.0, 99.0)
BINS = 64  # of the histogram that the foreground's threshold is sought on
HEAT = 0.65  # share of the attention map's colour in a pixel; the rest is the picture in grey


@torch.no_grad()
def feature_pca(backbone: Backbone, images: Tensor) -> list[Picture]:
    """The three main directions of the patch features of uint8 images [N, H, W, 3] as red, green and blue.

    The directions are common to all images, so that a colour means the same in each of them.
    """
    tokens, grid = _tokens(backbone, images)
    return _painted(_colours(tokens), grid, images)


@torch.no_grad()
def foreground_pca(backbone: Backbone, images: Tensor) -> list[Picture]:
    """`feature_pca` of what stands out alone; the rest is black.

    The first direction over all images is cut in two by Otsu's threshold. The side that holds more of the top, left and
    right edges, where few people are, is background. The colours are the main directions of the other side.
    """
    tokens, grid = _tokens(backbone, images)
    main = _scores(tokens, 1)[:, 0]
    above = (main > otsu(main)).reshape(-1, *grid)
    edge = np.zeros(grid, bool)
    edge[0], edge[:, 0], edge[:, -1] = True, True, True
    front = (above != (above[:, edge].mean() > above[:, ~edge].mean())).ravel() if (~edge).any() else above.ravel()
    colours = np.zeros((len(tokens), 3), np.uint8)
    if front.sum() > 3:
        colours[front] = _colours(tokens[front])
    return _painted(colours, grid, images)


def otsu(values: Array) -> float:
    """The threshold between two groups of numbers [N] that differ most for their spread (Otsu 1979)."""
    counts, edges = np.histogram(values, BINS)
    centres, cuts = (edges[:-1] + edges[1:]) / 2, edges[1:-1]
    below, weighted = np.cumsum(counts), np.cumsum(counts * centres)
    two = (below[:-1] > 0) & (below[:-1] < below[-1])
    if not two.any():
        return float(cuts[len(cuts) // 2])  # all alike
    n, sums, cuts = below[:-1][two], weighted[:-1][two], cuts[two]
    rest = below[-1] - n
    between = n * rest * (sums / n - (weighted[-1] - sums) / rest) ** 2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))  # in the gap of two groups, every cut is as good
    return float(cuts[best[len(best) // 2]])


@torch.no_grad()
def class_attention(backbone: Backbone, images: Tensor) -> Tensor:
    """How the last block's class token attends to the patches of uint8 images [N, H, W, 3]: [N, heads, h, w].

    Shares of all its attention; what a head leaves to the class token and the registers makes the rest of 1.
    """
    seen: list[Tensor] = []

    def look(module: torch.nn.Module, given: tuple[Tensor, RopeRows | None, int | None]) -> None:
        assert isinstance(module, Attention)
        seen.append(_class_weights(module, given[0], given[1]))

    last = backbone.blocks[-1]
    hook = last.attn.register_forward_pre_hook(look)  # type: ignore[union-attr]
    try:
        found = backbone(normalise(images.to(backbone.cls_token.device))).patches
    finally:
        hook.remove()
    return seen[0][..., backbone.prefix :].unflatten(2, (found.shape[2], found.shape[3])).cpu()


def _class_weights(attention: Attention, x: Tensor, rows: RopeRows | None) -> Tensor:
    """Attention of the first token over all, which `forward` does not keep: x [B, n, D] -> [B, heads, n]."""
    split = lambda y, heads: y.unflatten(2, (heads, attention.head_dim)).transpose(1, 2)  # noqa: E731
    q = attention.q_norm(split(attention.wq(x[:, :1]), attention.heads))
    k = attention.k_norm(split(attention.wk(x), attention.kv_heads))
    if rows is not None:
        q, k = rotate(q, rows.first(1)), rotate(k, rows)
    k = k.repeat_interleave(attention.heads // attention.kv_heads, 1)
    scores = (q.float() @ k.float().transpose(-1, -2)) * attention.head_dim**-0.5
    return scores.softmax(-1).squeeze(2)


def attention_pictures(backbone: Backbone, images: Tensor) -> list[list[Picture]]:
    """For each image: the mean over the heads, then every head, laid over the picture; uint8 [H, W, 3].

    Colours run from black at the weakest patch of a map to yellow at its strongest.
    """
    maps = class_attention(backbone, images)
    return [
        [_lit(image.numpy(), one.numpy()) for one in torch.cat([heads.mean(0, keepdim=True), heads])]
        for image, heads in zip(images, maps)
    ]


def _lit(image: NDArray[np.uint8], weights: NDArray[np.float32]) -> Picture:
    low, high = float(weights.min()), float(weights.max())
    share = ((weights - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8)
    full = cv2.resize(share, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    heat = cv2.cvtColor(cv2.applyColorMap(full, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    return np.asarray((HEAT * heat + (1 - HEAT) * grey).round(), np.uint8)


def _tokens(backbone: Backbone, images: Tensor) -> tuple[Array, tuple[int, int]]:
    """Patch vectors [N h w, D] of all images, and (h, w)."""
    maps = backbone(normalise(images.to(backbone.cls_token.device))).patches.float()
    tokens = maps.movedim(1, -1).flatten(0, 2).cpu().double().numpy()
    return tokens, (maps.shape[2], maps.shape[3])


def _scores(tokens: Array, count: int) -> Array:
    """Coordinates [N, count] of vectors along their main directions, the strongest first."""
    centred = tokens - tokens.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    main = directions[:, : -count - 1 : -1]  # eigenvalues ascend
    scores: Array = centred @ (main * np.sign(main.sum(0)))  # the sign is arbitrary, so it is fixed
    return scores


def _colours(tokens: Array) -> Picture:
    scores = _scores(tokens, 3)
    low, high = np.percentile(scores, PERCENTILES, axis=0)
    return (np.clip((scores - low) / np.maximum(high - low, 1e-12), 0, 1) * 255).round().astype(np.uint8)


def _painted(colours: Picture, grid: tuple[int, int], images: Tensor) -> list[Picture]:
    size = (images.shape[2], images.shape[1])
    return [
        np.asarray(cv2.resize(colour, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
        for colour in colours.reshape(len(images), *grid, 3)
    ]
