"""The drawing of a skeleton that CVAT shows to whoever labels it: a standing person in a square of 100."""

from __future__ import annotations

import numpy as np

from sapiens2.data.annotation.coco_json import links
from sapiens2.data.formats.vocabularies import Layout

Array = np.ndarray


def skeleton_svg(which: Layout) -> str:
    """Nodes and edges in the attributes that CVAT's constructor writes; node ids count from 1."""
    places = _places(which)
    edges = [
        f'<line x1="{places[a, 0]:.2f}" y1="{places[a, 1]:.2f}" x2="{places[b, 0]:.2f}" y2="{places[b, 1]:.2f}" '
        f'data-type="edge" data-node-from="{a + 1}" data-node-to="{b + 1}"></line>'
        for a, b in links(which)
    ]
    nodes = [
        f'<circle r="0.3" cx="{x:.2f}" cy="{y:.2f}" data-type="element node" data-element-id="{k}" '
        f'data-node-id="{k}" data-label-name="{name}"></circle>'
        for k, (name, (x, y)) in enumerate(zip(which.names, places, strict=True), 1)
    ]
    return "".join([*edges, *nodes])


def _places(which: Layout) -> Array:
    """Of a rendered person, within 5 to 95; points that the renderer does not know stand in a row below."""
    from sapiens2.data.synthetic.scene import render

    scene = render(0, 256, 192, "train")
    xy = scene.keypoints.astype(float)
    low, high = xy.min(0), xy.max(0)
    xy = 50 + (xy - (low + high) / 2) * 84 / (high - low).max()
    known = which.writes >= 0
    out = np.stack([np.linspace(5, 95, len(known)), np.full(len(known), 97.0)], 1)
    out[known] = xy[which.writes[known]]
    return out
