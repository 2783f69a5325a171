"""What a light decoder can read from a frozen patch map: one decoder and one recipe for every backbone and task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sapiens2.evaluation.config import ProbeConfig
from sapiens2.evaluation.measure import Answer
from sapiens2.evaluation.probe_scenes import Pixels, Targets
from sapiens2.evaluation.semantic_probe import FLOOR
from sapiens2.model.heads_small import WAVES, places
from sapiens2.tasks.heatmaps import decode, encode, heatmap_sigma, to_heatmap, to_image
from sapiens2.tasks.losses import albedo_losses, masked_mean, normal_losses, pose_losses, segmentation_losses
from sapiens2.tasks.vocabulary import keypoints, parts

CHANNELS = {"pose": len(keypoints()), "segmentation": len(parts()), "normal": 3, "pointmap": 3, "albedo": 3}
STAGES = {"pose": 1, "segmentation": 2, "normal": 2, "pointmap": 2, "albedo": 2}
"""Doublings of the patch grid: a heatmap's maximum is refined below a cell, a map's edges are not."""
GAIN = {"segmentation": 10.0}
"""Factor on outputs, by which answers of large values (logits) are reached in few small steps; 1 otherwise."""


def output_grid(task: str, grid: Pixels) -> Pixels:
    """Rows and columns of the decoder's output over a patch map of `grid`."""
    factor = 2 ** STAGES[task]
    return grid[0] * factor, grid[1] * factor


class Decoder(nn.Module):
    """Standardised channels, RMSNorm, a projection that is told the absolute place too, linear maps that each split a
    cell in 2 x 2.

    It never mixes patches: what it says of a patch, the backbone has put there. Places matter: with rotary embeddings a
    patch knows relative ones only, and other backbones know theirs. `linear` has no hidden layer: each patch's vector
    gives all its cells. The last layer starts at zero.
    """

    def __init__(self, dim: int, task: str, config: ProbeConfig) -> None:
        super().__init__()
        stages, out = STAGES[task], CHANNELS[task]
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.norm = nn.RMSNorm(dim)
        hidden = config.decoder == "shuffle"
        width = config.width if hidden else out * 4**stages
        self.project, self.place = nn.Linear(dim, width), nn.Linear(4 * WAVES, width, bias=False)
        self.splits = nn.ModuleList()
        for k in range(stages if hidden else 0):
            self.splits.append(nn.Linear(width >> k, width >> k << 1))
        self.last = nn.Linear(width >> stages, out) if hidden else None
        self.factor, self.gain = 2**stages, GAIN.get(task, 1.0)
        nn.init.zeros_((self.last or self.project).weight)
        nn.init.zeros_((self.last or self.project).bias)
        if self.last is None:
            nn.init.zeros_(self.place.weight)

    centre: Tensor
    scale: Tensor

    @torch.no_grad()
    def start_from(self, patches: Tensor, level: Tensor) -> None:
        """Take each channel's mean and spread over maps [N, D, h, w], and the first answer: a number per output.

        Channels are standardised because a young backbone gives nearly the same vector everywhere.
        """
        spread, mean = torch.std_mean(patches.float(), (0, 2, 3))
        self.centre.copy_(mean)
        self.scale.copy_(spread.clamp(min=float(FLOOR * spread.square().mean().sqrt()) + 1e-12))
        bias = (self.last or self.project).bias
        bias.copy_(level.repeat(len(bias) // len(level)) / self.gain)

    def forward(self, patches: Tensor) -> Tensor:
        """Frozen patch maps [B, D, h, w] -> [B, C, h', w'], see `output_grid`."""
        x = self.norm((patches.movedim(1, -1) - self.centre) / self.scale)
        h, w = x.shape[1:3]
        x = self.project(x) + self.place(places(h, w, patches).movedim(1, -1))
        if self.last is None:
            return split(x, self.factor).movedim(-1, 1) * self.gain
        for layer in self.splits:
            x = split(layer(F.silu(x)), 2)
        out: Tensor = self.last(F.silu(x))
        return out.movedim(-1, 1) * self.gain


def split(x: Tensor, factor: int) -> Tensor:
    """Pixel shuffle, channels last: [B, h, w, factor^2 C] -> [B, factor h, factor w, C]."""
    x = x.unflatten(-1, (factor, factor, -1))  # [B, h, w, row, column, C]
    return x.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)


def fit(task: str, patches: Tensor, labels: Targets, config: ProbeConfig) -> Decoder:
    """A decoder trained on cached maps [N, D, h, w] and their labels on the output grid.

    The same seed gives the same weights, order of scenes and result.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        decoder = Decoder(patches.shape[1], task, config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    decoder.start_from(patches, first_answer(task, labels))
    decoder.to(device).train()
    optimizer = torch.optim.AdamW(
        decoder.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=config.weight_decay
    )
    weights = torch.tensor(parts().weights).sqrt().to(device)
    batches = batches_of(len(patches), config)
    for step in range(config.steps):
        chosen = next(batches)
        out = decoder(patches[chosen].float().to(device))
        loss = task_loss(task, out, {k: v[chosen].to(device) for k, v in labels.items()}, weights, config)
        optimizer.param_groups[0]["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return decoder.eval()


def restored(task: str, state: Mapping[str, np.ndarray], config: ProbeConfig) -> Decoder:
    """The decoder that `fit` has returned, from its state."""
    with torch.random.fork_rng(devices=[]):
        decoder = Decoder(len(state["centre"]), task, config)
    decoder.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    return decoder.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def batches_of(count: int, config: ProbeConfig) -> Iterator[Tensor]:
    """Indices of each step: permutation after permutation, incomplete batches left out."""
    generator = torch.Generator().manual_seed(config.seed)
    size = min(config.batch, count)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count - count % size].split(size)


def first_answer(task: str, labels: Targets) -> Tensor:
    """The constant answer that a decoder starts from: class log frequencies, channel means, no keypoint anywhere."""
    if task == "pose":
        return torch.zeros(CHANNELS[task])
    if task == "segmentation":
        counts = torch.bincount(labels["mask"].flatten().long(), minlength=CHANNELS[task]).float()
        return ((counts + 1) / (counts + 1).sum()).log()
    covered = labels["valid"].expand_as(labels["target"])
    return (labels["target"] * covered).sum((0, 2, 3)) / covered.sum((0, 2, 3)).clamp(min=1)


def task_loss(task: str, out: Tensor, labels: Targets, class_weights: Tensor, config: ProbeConfig) -> Tensor:
    """The task's own losses at the decoder's resolution; points only up to scale."""
    if task == "pose":
        size = (out.shape[-2], out.shape[-1])
        xy = to_heatmap(labels["keypoints"], config.image_size, size)
        target = encode(xy, size, heatmap_sigma(size[1]))
        terms = pose_losses(out, target, labels["labelled"].float())
    elif task == "segmentation":
        terms = segmentation_losses(out, labels["mask"], class_weights)
    elif task == "normal":
        terms = normal_losses(out, labels["target"], labels["valid"])
    elif task == "albedo":
        terms = albedo_losses(out, labels["target"], labels["valid"])
    else:
        terms = {"loss_l1": masked_mean((out - labels["target"]).abs(), labels["valid"])}
    return torch.stack(list(terms.values())).sum()


@torch.no_grad()
def answers(task: str, decoder: Decoder, patches: Tensor, size: Pixels, batch: int = 32) -> Iterator[Answer]:
    """What the decoder says of each cached map, in pixels of a picture of `size` (height, width)."""
    device = next(decoder.parameters()).device
    for chunk in patches.split(batch):
        out = decoder(chunk.float().to(device))
        yield from _finished(task, out, size)


def _finished(task: str, out: Tensor, size: Pixels) -> Iterator[Answer]:
    if task == "pose":
        xy, scores = decode(out)
        xy = to_image(xy, size, (out.shape[-2], out.shape[-1]))
        yield from ({"keypoints": k, "scores": s} for k, s in zip(xy.cpu().numpy(), scores.cpu().numpy(), strict=True))
        return
    full = F.interpolate(out, size, mode="bilinear", align_corners=False)
    if task == "segmentation":
        yield from ({"labels": labels} for labels in full.argmax(1).to(torch.uint8).cpu().numpy())
        return
    full = F.normalize(full, dim=1) if task == "normal" else full  # albedo is measured unclamped
    yield from ({"map": values} for values in full.movedim(1, -1).cpu().numpy())
