"""The checkpoints of a pretraining run, and which of them is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sapiens2.evaluation.probe import FittedProbe, ProbeResult
from sapiens2.pretrain.config import PretrainConfig

LAST = "model.safetensors"


@dataclass(frozen=True)
class Candidate:
    """A checkpoint of a run: `file` is its place below the run's folder, `step` the steps it was trained."""

    file: str
    step: int

    @property
    def name(self) -> str:
        """`last`, or `step N`."""
        return "last" if self.file == LAST else f"step {self.step}"


@dataclass(frozen=True)
class Probed:
    """A candidate, its probes and what they reach on validation scenes."""

    candidate: Candidate
    fitted: FittedProbe
    result: ProbeResult


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
