"""What changes over a run besides the learning rate, each a pure function of the step (0-based)."""

from __future__ import annotations


def linear(step: int, first: float, final: float, steps: int) -> float:
    """From `first` at step 0 to `final` at step `steps`, then constant."""
    return final if step >= steps else first + (final - first) * step / steps


def ramp(step: int, steps: int) -> float:
    """From 1 / steps at step 0 to 1 at step `steps` - 1, then 1; always 1 when there are no steps."""
    return 1.0 if step >= steps else (step + 1) / steps


def scaled_ema(batch: int, reference: float = 0.992, reference_batch: int = 1536) -> float:
    """The EMA momentum that looks back over as many images at another batch size.

    m^(batch / reference batch): the teacher's memory is then measured in images, not in steps (Busbridge et al. 2023).
    """
    return float(reference ** (batch / reference_batch))
