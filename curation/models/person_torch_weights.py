"""Torch networks whose weights are no numbers are refused: their boxes compare false with every threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def refuse_broken(network: Any, path: Path) -> None:
    """Raises ValueError naming the file and the first parameter or buffer [any shape] that holds NaN or infinity."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{path}: {name} holds NaN or infinity, so the network would find nobody; get the file anew"
            )
