"""What a training run publishes beside its weights: curves and pictures as a fragment, numbers as metrics.json."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sapiens2.engine import storage

if TYPE_CHECKING:
    from sapiens2.engine.history import Row
    from sapiens2.engine.loop import TrainSummary

Section = dict[str, Any]
THUMBNAIL_PX = 320
_JPEG_QUALITY = 85


def publish(out: str, config: dict[str, Any], fragment: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Write config.json, fragment.json and, as the sign that all is there, metrics.json."""
    for name, content in (("config", config), ("fragment", fragment), ("metrics", metrics)):
        text = json.dumps(content, indent=2, sort_keys=name != "fragment", allow_nan=False)
        storage.write_bytes(storage.join(out, f"{name}.json"), text.encode())


def run_metrics(summary: TrainSummary, *, seed: int, flops_per_image: float) -> dict[str, Any]:
    """The numbers that every training run reports; `seconds` and what follows from it differ between runs."""
    return {
        "digest": summary.digest,
        "steps": summary.steps,
        "images": summary.images,
        "seconds": round(summary.seconds, 3),
        "images_per_s": summary.images / summary.seconds if summary.seconds else None,
        "parameters": summary.parameters,
        "trained_parameters": summary.trained_parameters,
        "flops": flops_per_image * summary.images,
        "skipped_steps": summary.skipped,
        "loss_first": summary.first["loss"],
        "loss_final": summary.last["loss"],
        "first": _losses(summary.first),
        "final": _losses(summary.last),
        "seed": seed,
        "ranks": summary.ranks,
        "device": summary.device,
    }


_ASIDE = {"step", "lr", "seconds_per_step", "data_wait", "skipped", "images_per_s", "mfu", "memory_gib"}


def _losses(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _ASIDE}


def curves(title: str, history: Sequence[Row], names: Sequence[str], y_label: str, note: str = "") -> Section:
    """A section of lines over the steps, one per name that the history holds."""
    series = []
    for name in names:
        points = [(row["step"], row[name]) for row in history if row.get(name) is not None]
        if points:
            series.append({"name": name, "x": [x for x, _ in points], "y": [y for _, y in points]})
    section: Section = {"type": "lines", "title": title, "x_label": "step", "y_label": y_label, "series": series}
    return section | ({"note": note} if note else {})


def table(title: str, rows: Sequence[tuple[str, Any]]) -> Section:
    """A section of names and values."""
    return {"type": "table", "title": title, "columns": ["", "value"], "rows": [list(row) for row in rows]}


def pictures(
    title: str, items: Sequence[tuple[NDArray[np.uint8], str]], note: str = "", *, max_side: int = THUMBNAIL_PX
) -> Section:
    """A section of captioned pictures, uint8 [H, W, 3] RGB, at most `max_side` pixels on their long side."""
    shown = [{"jpeg": _jpeg(picture, max_side), "caption": caption} for picture, caption in items]
    return {"type": "images", "title": title, "items": shown} | ({"note": note} if note else {})


def _jpeg(picture: NDArray[np.uint8], max_side: int) -> str:
    import cv2

    longest = max(picture.shape[:2])
    if longest > max_side:
        scale = max_side / longest
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    parameters = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), parameters)
    assert done
    return base64.b64encode(data.tobytes()).decode()
