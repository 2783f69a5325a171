"""Manifests and fragments shaped as a run publishes them, for the tests of the pages."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from typing import Any

import numpy as np
from PIL import Image

HOSTILE = """<script>alert("x")</script>'"></title></style><img src=x onerror=alert(1)>"""


def version(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def manifest(step: str, kind: str, inputs: Sequence[dict[str, Any]] = (), **changes: Any) -> dict[str, Any]:
    """A manifest whose inputs are the given manifests; `changes` replace its keys."""
    made = {
        "manifest_version": 1,
        "kind": kind,
        "version": version(step, kind, [m["version"] for m in inputs]),
        "digest": "0" * 64,
        "step": step,
        "config": {"seed": 0},
        "inputs": [{"role": m["kind"], "kind": m["kind"], "version": m["version"]} for m in inputs],
        "files": [{"path": f"{kind}/0.parquet", "table": "data", "bytes": 1200, "rows": 7, "sha256": "0" * 64}],
        "schema": {},
        "metrics": {"rows_in": 9, "kept": 7, "dropped": {"too_small": 2}, "seconds": 1.25},
        "models": [],
        "code": {"package_version": "0.1.0", "git_commit": "abc123def4567", "dirty": False},
        "environment": {"python": "3.11.9"},
        "seed": 0,
        "start": "2025-01-02T03:04:05+00:00",
        "end": "2025-01-02T03:04:06+00:00",
    }
    return {**made, **changes}


def small_run() -> list[dict[str, Any]]:
    """images -> detections -> filtered -> selection -> backbone, filtered reading images too."""
    images = manifest("ingest", "images")
    detections = manifest("detect", "detections", [images])
    filtered = manifest("filter", "filtered", [images, detections])
    selection = manifest("balance", "selection", [filtered])
    return [images, detections, filtered, selection, manifest("pretrain", "backbone", [selection])]


def jpeg(pixels: np.ndarray, quality: int = 80) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return base64.b64encode(out.getvalue()).decode()


def noise_jpeg(seed: int, side: int = 96) -> str:
    """A picture that does not compress: about its pixels in bytes."""
    return jpeg(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def every_section(text: str) -> dict[str, Any]:
    """A fragment with every type of section, `text` wherever text may stand."""
    series = [{"name": text, "values": [3, 1]}, {"name": text + "2", "values": [2, None]}]
    curve = [{"name": text, "x": [0, 1, 2], "y": [3.0, 2.0, 1.0]}, {"name": text + "2", "x": [0, 2], "y": [1.0, 1.0]}]
    item = {"jpeg": noise_jpeg(1), "caption": text, "sub": text, "group": text, "mark": True}
    steps = [{"name": text, "rows_in": 5, "kept": 3, "dropped": {text: 2}}]
    sections = [
        {"type": "text", "body": text},
        {"type": "table", "columns": [text, "n"], "rows": [[text, 1], [None, 2.5]]},
        {"type": "bars", "labels": [text, "b"], "series": series},
        {"type": "histogram", "edges": [0, 1, 2], "counts": [4, 5], "threshold": 1.5, "unit": text},
        {"type": "lines", "x_label": text, "y_label": text, "series": curve},
        {"type": "images", "items": [item]},
        {"type": "funnel", "steps": steps},
    ]
    return {"title": text, "sections": [{**section, "title": text, "note": text} for section in sections]}


class Tags(HTMLParser):
    """Collects (tag, attributes) and the text between."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: str) -> Tags:
    reader = Tags()
    reader.feed(page)
    return reader


def fetched(page: str) -> Iterator[str]:
    """Every address that a browser would fetch by itself while showing the page."""
    for tag, attributes in parsed(page).tags:
        for name in ("src", "srcset", "poster", "data", "xlink:href"):
            if attributes.get(name):
                yield str(attributes[name])
        if tag == "link" and attributes.get("href"):
            yield str(attributes["href"])
