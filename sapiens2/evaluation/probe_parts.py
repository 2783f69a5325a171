"""Backbones probed one after the other, so that those measured before a kill need not be measured again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
from torch import nn

from sapiens2.engine import storage
from sapiens2.engine.training_state import digest
from sapiens2.evaluation.config import ProbeConfig
from sapiens2.evaluation.frozen import FrozenBackbone
from sapiens2.evaluation.probe import Fitted, FittedProbe, ProbeResult
from sapiens2.evaluation.probe_scenes import ProbeScenes
from sapiens2.evaluation.remains import ENDS, keep, kept
from sapiens2.model.foreign import ForeignBackbone
from sapiens2.model.weights import named_weights

Progress = Callable[[int, int, str], None]
"""Backbones that are done, of how many, and what is to be said of them."""


@dataclass(frozen=True)
class ProbePart:
    """The fitted probes of a backbone and what they reach on a split; `made_of` is all that decides on the numbers."""

    made_of: str
    fitted: Fitted
    result: ProbeResult


class ProbeParts:
    """Measures backbones, and takes those as they are that the same command has measured before it was killed."""

    def __init__(
        self,
        config: ProbeConfig,
        scenes: ProbeScenes,
        total: int,
        *,
        state: str = "",
        code: str = "",
        progress: Progress = lambda done, total, note: None,
    ) -> None:
        """state: a folder or URI of this very probe, "" to keep nothing; code: names the code that measures.

        total: how many are to be measured, for `progress`, which is told before each that is not taken.
        """
        self.config, self.scenes, self.total = config, scenes, total
        self._state, self._code, self._progress = state, code, progress
        self._done = self._taken = 0

    def measure(
        self, name: str, extractor: FrozenBackbone, split: str, fitted: FittedProbe | None = None
    ) -> tuple[FittedProbe, ProbeResult]:
        """The probes of a backbone, `fitted` if they are, and what they reach on a split.

        name: another one at each call, the same at each try. Raises ValueError like FittedProbe.
        """
        made_of = self._made_of(extractor, split) if self._state else ""
        uri = storage.join(self._state, f"{name}{ENDS}") if self._state else ""
        part = kept(uri, ProbePart, lambda found: found.made_of == made_of) if uri else None
        if part is not None:
            self._done, self._taken = self._done + 1, self._taken + 1
            return fitted or FittedProbe(extractor, self.config, self.scenes, part.fitted), part.result
        self.tell()
        fitted = fitted or FittedProbe(extractor, self.config, self.scenes)
        result = fitted.measure(split)
        if uri:
            keep(ProbePart(made_of, fitted.fitted, result), uri)
        self._done += 1
        return fitted, result

    def tell(self) -> None:
        """Say how far it is."""
        self._progress(self._done, self.total, f"({self._taken} measured before)" if self._taken else "")

    def _made_of(self, extractor: FrozenBackbone, split: str) -> str:
        """A digest of settings, weights, code and whatever moves a last bit.

        The version of a step covers less: how many pictures go through at once and in how many bits they are kept are
        no part of it.
        """
        matters = set(ProbeConfig.model_fields) - {"cache_scenes"}
        told = {
            "config": self.config.model_dump(mode="json", include=matters),
            "backbone": [extractor.name, extractor.cell, repr(getattr(extractor.backbone, "architecture", None))],
            "weights": digest(named_weights(extractor.backbone)),
            "split": split,
            "code": self._code,
            "machine": [*_libraries(extractor.backbone), extractor.device.type, torch.get_num_threads()],
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _libraries(backbone: nn.Module) -> list[str]:
    """Versions of what computes features and fits probes."""
    versions = [torch.__version__, np.__version__]
    if isinstance(backbone, ForeignBackbone):
        versions.append(version("timm" if backbone.name.library == "timm" else "transformers"))
    return versions
