"""The checkpoints of a pretraining run, and which of them is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sapiens2.evaluation.probe import FittedProbe, ProbeResult
from sapiens2.model.sizes import Architecture, architecture
from sapiens2.pretrain.config import PretrainConfig

LAST = "model.safetensors"


@dataclass(frozen=True)
class Candidate:
    """A checkpoint of a run: `file` is its place below the run's folder, `step` the steps it was trained, if known."""

    file: str
    step: int | None

    @property
    def name(self) -> str:
        """`last`, `step N`, or `imported`."""
        if self.step is None:
            return "imported"
        return "last" if self.file == LAST else f"step {self.step}"


@dataclass(frozen=True)
class Run:
    """What there is to probe: a backbone's size, make-up and pixels per token, and its checkpoints, oldest first."""

    size: str
    architecture: Architecture
    stride: int
    candidates: list[Candidate]


@dataclass(frozen=True)
class Probed:
    """A candidate, its probes and what they reach on validation scenes."""

    candidate: Candidate
    fitted: FittedProbe
    result: ProbeResult


def run_of(about: dict[str, Any], files: Sequence[str], which: str) -> Run:
    """A run by its config.json and its files. Imported weights have no recipe: they are the only candidate.

    Raises ValueError like `candidates`.
    """
    if about["config"] is None:
        made = architecture(about["size"])
        stride = made.patch * (made.window if about["window_tokenizer"] else 1)
        return Run(about["size"], made, stride, [Candidate(LAST, None)])
    config = PretrainConfig(**about["config"])
    return Run(config.size, config.architecture, config.stride, candidates(config, files, which))


def candidates(about: PretrainConfig, files: Sequence[str], which: str) -> list[Candidate]:
    """The checkpoints among a run's files, oldest first: those that its recipe keeps (unless `which` is last), and the
    last. Raises ValueError when one is missing."""
    steps = () if which == "last" else about.kept_steps
    found = [Candidate(f"checkpoints/step_{step}.safetensors", step) for step in steps]
    found.append(Candidate(LAST, about.engine.steps))
    missing = [c.file for c in found if c.file not in files]
    if missing:
        raise ValueError(f"the run has no {', '.join(missing)}: pretrain again, or set checkpoints=last")
    return found


def best(scores: Sequence[float]) -> int:
    """The place of the highest score; of equal ones the last, which was trained longest."""
    return max(range(len(scores)), key=lambda k: (scores[k], k))
