"""Measured values on their way to the cache and the table: rounded before anything uses them, never NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_DECIMALS = 4


def remembered(values: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The JSON-able form that is stored: vectors (numpy arrays) at fp16 precision, other floats to 1e-4.

    Raises ValueError, naming `where`, for NaN or infinity: a model that gives them is broken.
    """
    return {name: _plain(value, f"{where}, column {name}") for name, value in values.items()}


def restored(stored: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """The table's values of a stored row. Raises ValueError when a column is absent: the key's revision is stale."""
    absent = [name for name in columns if name not in stored]
    if absent:
        raise ValueError(f"the score cache holds a row without {absent}; delete the cache directory of that model")
    return {name: stored[name] for name in columns}


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, np.ndarray):
        with np.errstate(over="ignore"):  # what overflows is caught in the next line
            half = value.astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(f"{where}: the model gave NaN or infinity; check its weights and input")
        return [float(x) for x in half]
    if isinstance(value, (list, tuple)):
        return [_plain(x, where) for x in value]
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{where}: the model gave {number}; check its weights and input")
    return round(number, _DECIMALS) + 0.0
