"""Random draws that depend on what they are for, never on what was drawn before."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a draw is for; streams of one seed and index are independent."""

    VIEWS = 0
    MASKS = 1
    PHOTOMETRIC = 2
    PERSON = 3
    RESOLUTION = 4


def generator(seed: int, stream: Stream, index: int) -> np.random.Generator:
    """The generator of one sample (its global index in the run) and one purpose."""
    return np.random.default_rng([seed, int(stream), index])
