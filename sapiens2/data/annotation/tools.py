"""The annotation tools, by name: which files each takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sapiens2.data.annotation import coco_json, cvat_xml, label_studio
from sapiens2.data.annotation.batch import Batch
from sapiens2.data.annotation.labels import Found, PictureLabels


@dataclass(frozen=True)
class Tool:
    """Writes a batch for a tool into a folder, and reads the file that the tool gives back."""

    file: str
    write: Callable[[Path, Batch, Mapping[str, PictureLabels]], None]
    read: Callable[[Path, Batch], Found]


TOOLS: dict[str, Tool] = {
    "coco": Tool(coco_json.FILE, coco_json.write, coco_json.read),
    "cvat": Tool(cvat_xml.FILE, cvat_xml.write, cvat_xml.read),
    "label-studio": Tool(label_studio.FILE, label_studio.write, label_studio.read),
}


def tool(name: str) -> Tool:
    """A tool by name; ValueError listing the names."""
    if name not in TOOLS:
        raise ValueError(f"no annotation tool is called {name!r}; use one of {', '.join(TOOLS)}")
    return TOOLS[name]
