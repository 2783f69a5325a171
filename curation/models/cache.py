"""Where model outputs are remembered, so that a changed threshold never calls a model again."""

from __future__ import annotations

from typing import Any, Protocol


class ModelCache(Protocol):
    """Model outputs by image. `model_key` is `<weights sha256 or builtin name>/<preprocessing revision>`.

    Values are rounded before they are used or stored, so an output read back equals a fresh one.
    """

    def get(self, model_key: str, image_ids: list[str]) -> dict[str, dict[str, Any]]:
        """The outputs that are known, by image_id; unknown ids are absent."""

    def put(self, model_key: str, rows: dict[str, dict[str, Any]]) -> None:
        """Remember outputs by image_id."""
