"""Sapiens2: a human-centric vision backbone, how it is pretrained, and its five tasks.

The public names load on first use, so that `import sapiens2` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sapiens2.model.backbone import build_backbone as build_backbone
    from sapiens2.model.weights import load_weights as load_weights
    from sapiens2.model.weights import save_weights as save_weights
    from sapiens2.tasks.build import build_task as build_task
    from sapiens2.tasks.load import load_task as load_task
    from sapiens2.tasks.predict import predict as predict

_HOMES = {
    "build_backbone": "sapiens2.model.backbone",
    "load_weights": "sapiens2.model.weights",
    "save_weights": "sapiens2.model.weights",
    "build_task": "sapiens2.tasks.build",
    "load_task": "sapiens2.tasks.load",
    "predict": "sapiens2.tasks.predict",
}

__all__ = ["build_backbone", "build_task", "load_task", "load_weights", "predict", "save_weights"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sapiens2' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
