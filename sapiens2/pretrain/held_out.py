"""The reconstruction loss on pictures that were never trained on, with masks and crops keyed by their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sapiens2.model.normalise import normalise
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.decoder import take
from sapiens2.pretrain.losses import normalised_targets
from sapiens2.pretrain.objective import PretrainObjective
from sapiens2.pretrain.source import PretrainSource
from sapiens2.pretrain.views import sample

MOST_PICTURES = 512  # enough for a mean; a large validation split would take longer than the last steps
_BATCH = 16
_RESAMPLES = 1000


@dataclass(frozen=True)
class HeldOut:
    """Mean squared error per normalised hidden pixel, 1 for answering each patch's own mean; 95 % interval."""

    mae: float
    low: float
    high: float
    errors: tuple[float, ...]  # of each picture, in the order of the files

    @property
    def pictures(self) -> int:
        """How many were measured."""
        return len(self.errors)


def held_out_batches(files: Sequence[str], config: PretrainConfig) -> Iterator[dict[str, Tensor]]:
    """Every picture of the files once, at most MOST_PICTURES, as the objective's batches; views of whole pictures."""
    # So that runs with and without are held against the same pictures and views.
    config = config.model_copy(update={"person_crops": 0.0, "resolution_power": 0.0})
    source = PretrainSource(files, config)
    samples: list[dict[str, np.ndarray]] = []
    count = min(len(source.shards), MOST_PICTURES)
    for position in range(count):
        samples.append(sample(source.picture(position), config, position))
        if len(samples) == _BATCH or position == count - 1:
            yield {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}
            samples = []


@torch.no_grad()
def held_out_loss(objective: PretrainObjective, batches: Sequence[dict[str, Tensor]], seed: int) -> HeldOut:
    """The student's loss on both global views of each picture, and a bootstrap interval over the pictures."""
    errors = np.concatenate([_errors(objective, batch) for batch in batches])
    draws = np.random.default_rng(seed).integers(len(errors), size=(_RESAMPLES, len(errors)))
    low, high = np.percentile(errors[draws].mean(1), (2.5, 97.5))
    return HeldOut(float(errors.mean()), float(low), float(high), tuple(errors.tolist()))


def _errors(objective: PretrainObjective, batch: dict[str, Tensor]) -> np.ndarray:
    """One mean squared error per picture [B]."""
    device = objective.centre.device
    images = normalise(batch["globals"].flatten(0, 1).to(device))  # [2 B, 3, H, W]
    prediction, masked = objective.complete(images, batch["kept"].flatten(0, 1).to(device))
    target, _, _ = normalised_targets(take(objective.target_patches(images), masked))
    error = (prediction.float() - target).square().mean((1, 2))
    return np.asarray(error.unflatten(0, (-1, 2)).mean(1).cpu().numpy(), np.float64)


def with_rows(files: Sequence[str]) -> list[str]:
    """The files that hold pictures at all: a small selection may leave nothing to hold out."""
    import pyarrow.parquet as pq

    from sapiens2.engine.storage import locate

    kept = []
    for file in files:
        system, path = locate(file)
        if pq.read_metadata(path, filesystem=system).num_rows:
            kept.append(file)
    return kept
