"""Lineage for people: the graph of the manifests' inputs as a drawing, as a page to explore, as a terminal tree."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from components.lineage_layout import Box, Drawing, Point, draw
from components.lineage_table import table_of
from curation.audit.axes import byte_size, number

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.tree import Tree

Manifest = Mapping[str, Any]

BOX = Box()
LISTED_FILES = 20  # of a manifest with more files, the page shows so many and says how many there are
DATA = ("images", "detections", "scores", "filtered", "deduped", "clusters", "selection", "shards")
PAGES = ("dataset_card", "evaluation", "report")
BESIDE = " eval."  # ends the title of the column of evaluations of one kind of model


def render_lineage(manifests: Sequence[Manifest], *, focus: str | None = None) -> str:
    """A self-contained page: the graph, search, a panel with the manifest of the node clicked, two versions compared.

    Where the graph is too large to be read on one screen, the page opens on a table of all versions instead.
    `focus` (a version, or the start of one) is selected at first. Raises ValueError when it names no artifact.
    """
    nodes = nodes_of(manifests)
    chosen = find(nodes, focus) if focus else None
    data = {key: None if m is None else plain(shortened(m)) for key, m in nodes.items()}
    return (
        templates()
        .get_template("lineage.html.j2")
        .render(
            svg=lineage_svg(manifests, focus),
            versions=version_table(nodes),
            data=script_json({"nodes": data, "focus": chosen}),
            count=len(manifests),
            kinds=len({m["kind"] for m in manifests}),
        )
    )


def lineage_svg(manifests: Sequence[Manifest], focus: str | None = None) -> Markup:
    """The graph alone, as one SVG element with its own style, to stand in any page.

    Artifacts that are named as inputs but have no manifest here are drawn dashed. With a focus, its ancestors and
    descendants stand out. Raises ValueError when `focus` names no artifact.
    """
    nodes = nodes_of(manifests)
    parents = {key: inputs_of(m) for key, m in nodes.items()}
    drawing = draw(parents, BOX)
    chosen = find(nodes, focus) if focus else None
    near = related(parents, chosen) if chosen else set(nodes)
    edges = [
        {
            "from": parent,
            "to": child,
            "path": path(route, drawing.sideways),
            "css": " ".join(
                ["edge"] + ["implied"] * ((parent, child) in drawing.implied) + ["dim"] * (not {parent, child} <= near)
            ),
        }
        for (parent, child), route in drawing.routes.items()
    ]
    boxes = [node_box(key, m, drawing, chosen, near) for key, m in nodes.items()]
    return Markup(templates().get_template("lineage.svg.j2").render(drawing=drawing, edges=edges, boxes=boxes, box=BOX))


def version_table(nodes: Mapping[str, Manifest | None]) -> dict[str, Any]:
    """What the template needs for the table of versions: titles, and a cell for each node."""
    titles = {key: column_title(key, m) for key, m in nodes.items()}
    beside = {title: title.removesuffix(BESIDE) for title in titles.values() if title.endswith(BESIDE)}
    table = table_of({key: inputs_of(m) for key, m in nodes.items()}, titles, beside)
    cells = []
    for key, cell in table.cells.items():
        kind, version = key.split("=", 1)
        css = [family(kind)] + ["missing"] * (nodes[key] is None)
        tip = " · ".join(part for part in (f"{kind} {version}", facts(nodes[key])) if part)
        cells.append({"key": key, "cell": cell, "text": version[:6], "tip": tip, "css": " ".join(css)})
    return {"titles": table.columns, "cells": cells}


def column_title(key: str, manifest: Manifest | None) -> str:
    """An artifact's kind; of a page about one kind of model, that kind and BESIDE, as it has a column of its own."""
    kind = key.split("=", 1)[0]
    models = {made for _, made, _ in role_inputs(manifest) if family(made) == "model"}
    return f"{models.pop()}{BESIDE}" if kind == "evaluation" and len(models) == 1 else kind


def family(kind: str) -> str:
    """Data, model, or a page."""
    return "data" if kind in DATA else "page" if kind in PAGES else "model"


def lineage_tree(manifests: Sequence[Manifest], focus: str) -> Tree:
    """What `focus` (a version, or the start of one) was made from, as a tree for the terminal; a repeat is one line.

    Raises ValueError when `focus` names no artifact.
    """
    from rich.text import Text
    from rich.tree import Tree

    nodes = nodes_of(manifests)
    root = find(nodes, focus)
    shown: set[str] = set()

    def grow(tree: Tree, key: str) -> None:
        for role, kind, version in role_inputs(nodes[key]):
            child = node_key(kind, version)
            line = Text.assemble((kind, "bold"), " ", (version[:8], "cyan"), (f"  {facts(nodes[child])}", "dim"))
            if role != kind:
                line.append(f"  as {role}", "italic dim")
            if child in shown and inputs_of(nodes[child]):
                tree.add(line.append("  (above)", "dim"))
                continue
            shown.add(child)
            grow(tree.add(line), child)

    kind, version = root.split("=", 1)
    tree = Tree(Text.assemble((kind, "bold"), " ", (version[:8], "cyan"), (f"  {facts(nodes[root])}", "dim")))
    grow(tree, root)
    return tree


def node_key(kind: str, version: str) -> str:
    """How a node is named: kind=version, as on the command line."""
    return f"{kind}={version}"


def role_inputs(manifest: Manifest | None) -> list[tuple[str, str, str]]:
    """(role, kind, version) of what an artifact was made from."""
    return [] if manifest is None else [(i["role"], i["kind"], i["version"]) for i in manifest.get("inputs", [])]


def inputs_of(manifest: Manifest | None) -> list[str]:
    """The keys of an artifact's inputs, each once."""
    return list(dict.fromkeys(node_key(kind, version) for _, kind, version in role_inputs(manifest)))


def nodes_of(manifests: Sequence[Manifest]) -> dict[str, Manifest | None]:
    """Manifest by key, oldest first; None for an input without a manifest here."""
    nodes: dict[str, Manifest | None] = {
        node_key(m["kind"], m["version"]): m for m in sorted(manifests, key=lambda m: (m.get("end") or "", m["kind"]))
    }
    for manifest in list(nodes.values()):
        for key in inputs_of(manifest):
            nodes.setdefault(key, None)
    return nodes


def find(nodes: Mapping[str, Any], focus: str) -> str:
    """The key of the one node whose version starts with `focus`, or that is named `kind=version`.

    Raises ValueError when there is none, or more than one.
    """
    found = [key for key in nodes if key == focus or key.split("=", 1)[1].startswith(focus)]
    if len(found) != 1:
        what = "no artifact" if not found else f"{len(found)} artifacts ({', '.join(sorted(found)[:4])})"
        raise ValueError(f"the version {focus!r} names {what} among the {len(nodes)} given; give more of its digits")
    return found[0]


def related(parents: Mapping[str, Sequence[str]], key: str) -> set[str]:
    """A node with all it was made from and all that was made from it."""
    children: dict[str, list[str]] = {node: [] for node in parents}
    for node, above in parents.items():
        for parent in above:
            children[parent].append(node)
    seen = {key}
    for neighbours in (parents, children):
        stack = [key]
        while stack:
            new = [n for n in neighbours[stack.pop()] if n not in seen]
            seen.update(new)
            stack += new
    return seen


def path(route: Sequence[Point], sideways: bool) -> str:
    """An SVG path from the far edge of the first box, straight through the layers between, to the last box."""
    turned = [(y, x) if sideways else (x, y) for x, y in route]  # (across, along)
    half = (BOX.width if sideways else BOX.height) / 2

    def at(across: float, along: float) -> str:
        return f"{along:.1f} {across:.1f}" if sideways else f"{across:.1f} {along:.1f}"

    x, y = turned[0][0], turned[0][1] + half
    parts = [f"M{at(x, y)}"]
    for index, (to_x, centre) in enumerate(turned[1:], start=1):
        bend = (centre - half - y) / 2
        parts.append(f"C{at(x, y + bend)} {at(to_x, centre - half - bend)} {at(to_x, centre - half)}")
        x, y = to_x, centre + half
        if index < len(turned) - 1:
            parts.append(f"L{at(x, y)}")
    return "".join(parts)


def node_box(
    key: str, manifest: Manifest | None, drawing: Drawing, chosen: str | None, near: set[str]
) -> dict[str, Any]:
    """What the template needs to draw one node."""
    kind, version = key.split("=", 1)
    css = [family(kind)] + ["missing"] * (manifest is None) + ["chosen"] * (key == chosen) + ["dim"] * (key not in near)
    x, y = drawing.centres[key]
    return {
        "key": key,
        "kind": kind if len(kind) <= 20 else kind[:19] + "…",
        "version": version[:8],
        "held": held(manifest),
        "when": when(manifest),
        "x": x - BOX.width / 2,
        "y": y - BOX.height / 2,
        "css": " ".join(css),
        "tip": f"{kind} {version}",
    }


def held(manifest: Manifest | None) -> str:
    """How much an artifact holds: rows of a table, bytes of anything else; empty when it does not say."""
    if manifest is None:
        return ""
    files = manifest.get("files", [])
    if manifest["kind"] not in DATA:
        return byte_size(sum(f["bytes"] for f in files)) if files else ""
    rows = manifest.get("metrics", {}).get("kept")
    if not isinstance(rows, int):
        counted = [f["rows"] for f in files if f.get("rows") is not None]
        rows = sum(counted) if counted else None
    return "" if rows is None else f"{number(rows)} row{'' if rows == 1 else 's'}"


def when(manifest: Manifest | None) -> str:
    """The end of the step to the minute, in the manifest's own time zone (UTC)."""
    return "no manifest here" if manifest is None else str(manifest.get("end") or "")[:16].replace("T", " ")


def facts(manifest: Manifest | None) -> str:
    """Size and date on one line."""
    return ", ".join(part for part in (held(manifest), when(manifest)) if part)


def shortened(manifest: Manifest) -> dict[str, Any]:
    """The manifest with a long list of files cut, saying so."""
    files = list(manifest.get("files", []))
    if len(files) <= LISTED_FILES:
        return dict(manifest)
    return {**manifest, "files": [*files[:LISTED_FILES], f"and {len(files) - LISTED_FILES:,} more files"]}


def plain(value: Any) -> Any:
    """The value with NaN and infinities as text: JSON has no numbers for them."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def script_json(value: Any) -> Markup:
    """JSON that may stand inside a script element: nothing in it can end the element or start another."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


@cache
def templates() -> Environment:
    """The templates of this package over those of the dataset card."""
    from jinja2 import ChoiceLoader, PackageLoader

    from curation.audit.page import environment

    return environment().overlay(loader=ChoiceLoader([PackageLoader("components"), PackageLoader("curation.audit")]))
