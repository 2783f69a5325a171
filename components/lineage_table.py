"""A table of versions: a column for each kind, every artifact within the rows of what it was made from.

What a drawing of hundreds of boxes cannot show on one screen, this can: text keeps its size, a version that many share
is one tall cell, and reading to the right is reading what was made from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from components.lineage_layout import Parents, layers_of, topological


@dataclass(frozen=True)
class Cell:
    """Where an artifact stands: its column, its first row, and how many rows it is tall."""

    column: int
    row: int
    rows: int


@dataclass(frozen=True)
class Table:
    """The titles of the columns and the cell of each node."""

    columns: list[str]
    cells: dict[str, Cell]


@dataclass
class Shape:
    """A node with what was laid out below it: offsets from its first row, and the room it takes by column."""

    offsets: dict[str, int]
    tops: dict[int, int]
    bottoms: dict[int, int]


def table_of(parents: Parents, title: Mapping[str, str], beside: Mapping[str, str]) -> Table:
    """Places every key of `parents` (node -> the nodes it was made from; all of them keys, older ones first).

    title: of each node's column. beside: titles that follow another title's column directly. A node stands within the
    rows of its inputs' rightmost, below its older siblings. Raises ValueError when the graph has a cycle.
    """
    order = topological(parents)
    columns = _columns(parents, order, title, beside)
    place = {node: columns.index(title[node]) for node in order}
    children: dict[str, list[str]] = {node: [] for node in order}
    roots: list[str] = []
    for node in parents:
        left = [parent for parent in parents[node] if place[parent] < place[node]]
        (children[max(left, key=place.__getitem__)] if left else roots).append(node)
    shapes: dict[str, Shape] = {}
    for node in sorted(order, key=place.__getitem__, reverse=True):
        shapes[node] = _stacked(node, place[node], children[node], place, shapes)
    whole = _stacked("", -1, roots, place, shapes)
    cells: dict[str, Cell] = {}
    waiting = [(node, whole.offsets[node]) for node in roots]
    while waiting:
        node, row = waiting.pop()
        cells[node] = Cell(place[node], row, shapes[node].bottoms[place[node]])
        waiting += [(child, row + shapes[node].offsets[child]) for child in children[node]]
    return Table(columns, cells)


def _columns(parents: Parents, order: Sequence[str], title: Mapping[str, str], beside: Mapping[str, str]) -> list[str]:
    """Titles from what is made first to what is made last."""
    depth = layers_of(parents, order)
    depths: dict[str, list[int]] = {}
    for node in order:
        depths.setdefault(title[node], []).append(depth[node])
    mean = {name: fmean(found) for name, found in depths.items()}

    def key(name: str) -> tuple[float, str, int]:
        host = beside.get(name, name)
        return (mean.get(host, mean[name]), host, name != host)

    return sorted(mean, key=key)


def _stacked(
    node: str, column: int, children: Sequence[str], place: Mapping[str, int], shapes: Mapping[str, Shape]
) -> Shape:
    """The children one below another, each as high as no column is taken twice."""
    made = Shape({}, {}, {})
    end = 1
    for child in children:
        shape = shapes[child]
        offset = max([0, *(made.bottoms.get(c, 0) - top for c, top in shape.tops.items())])
        made.offsets[child] = offset
        for c, bottom in shape.bottoms.items():
            made.tops[c] = min(made.tops.get(c, offset + shape.tops[c]), offset + shape.tops[c])
            made.bottoms[c] = max(made.bottoms.get(c, 0), offset + bottom)
        end = max(end, offset + shape.bottoms[place[child]])
    made.tops[column], made.bottoms[column] = 0, end
    return made
