"""A stage or a training job as a step with artifacts in and out."""

from typing import Any

__all__ = ["Selection", "Store", "curate"]

_WHERE = {"Selection": "components.notebook", "curate": "components.notebook", "Store": "components.artifacts"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'components' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
