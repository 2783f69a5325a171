"""A layered drawing of a directed acyclic graph: which row, which place in the row, which way the edges run.

Layers by longest path, order by barycentres (Sugiyama, Tagawa and Toda 1981), places by least squares. All edges of one
source share one trunk through the layers they cross, so an artifact that every later step reads stays one line.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 24
TRUNK_WIDTH = 14.0
TRUNK_PULL = 4.0  # how much more a trunk that carries the graph wants to be straight than a node to be centred
IMPLIED_PULL = 1e-3  # of an edge that a longer way implies, against 1 of an edge that carries the graph
VIEW = (1060.0, 850.0)  # px that a drawing is made to fit, as near as it can

Parents = Mapping[str, Sequence[str]]
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """The size of a node and the room around it, in pixels."""

    width: float = 190.0
    height: float = 44.0
    gap: float = 18.0  # between the nodes of a layer
    rise: float = 34.0  # between layers that lie one above another
    reach: float = 64.0  # between layers that stand side by side


@dataclass(frozen=True)
class Drawing:
    """Centres of the nodes, a way for each (parent, child), and the edges that a longer way already implies.

    Layers run downwards, or to the right when `sideways`.
    """

    centres: dict[str, Point]
    routes: dict[tuple[str, str], list[Point]]
    implied: frozenset[tuple[str, str]]
    width: float
    height: float
    sideways: bool


@dataclass
class Slot:
    """A place in a layer: a node, or the trunk of `node` passing through. Neighbours come with their pull."""

    node: str
    trunk: bool
    up: list[tuple[Slot, float]]
    down: list[tuple[Slot, float]]
    x: float = 0.0
    order: float = 0.0


def draw(parents: Parents, box: Box | None = None) -> Drawing:
    """Places every key of `parents` (node -> the nodes it was made from; all of them keys).

    Layers run downwards or sideways, whichever fits VIEW at the larger scale. Raises ValueError when the graph has a
    cycle.
    """
    box = box or Box()
    order = topological(parents)
    depth = layers_of(parents, order)
    implied = implied_edges(parents, order)
    layers, slots = slots_of(parents, order, depth, implied)
    order_layers(layers)
    sideways = fits_sideways(layers, box)
    size, pitch = (box.height, box.width + box.reach) if sideways else (box.width, box.height + box.rise)
    room = {False: size + box.gap, True: TRUNK_WIDTH}
    place(layers, room)
    across = [(s.x - room[s.trunk] / 2, s.x + room[s.trunk] / 2) for layer in layers for s in layer]
    start, end = min((a for a, _ in across), default=0.0), max((b for _, b in across), default=0.0)
    centre: dict[int, Point] = {}
    for level, layer in enumerate(layers):
        for slot in layer:
            at = (slot.x - start, pitch * (level + 0.5))
            centre[id(slot)] = (at[1], at[0]) if sideways else at
    extent = (pitch * len(layers), end - start)
    return Drawing(
        centres={node: centre[id(slots[node, depth[node]])] for node in order},
        routes={
            (parent, child): [centre[id(slots[parent, level])] for level in range(depth[parent], depth[child])]
            + [centre[id(slots[child, depth[child]])]]
            for child in order
            for parent in parents[child]
        },
        implied=implied,
        width=extent[0] if sideways else extent[1],
        height=extent[1] if sideways else extent[0],
        sideways=sideways,
    )


def fits_sideways(layers: Sequence[Sequence[Slot]], box: Box) -> bool:
    """Whether layers side by side fit VIEW at a larger scale than layers one above another."""
    most = max((sum(not s.trunk for s in layer) for layer in layers), default=1)
    down = min(VIEW[0] / (most * (box.width + box.gap)), VIEW[1] / (len(layers) * (box.height + box.rise) or 1))
    right = min(VIEW[0] / (len(layers) * (box.width + box.reach) or 1), VIEW[1] / (most * (box.height + box.gap)))
    return right > down


def topological(parents: Parents) -> list[str]:
    """Nodes with every parent before its children; otherwise in the given order.

    Raises ValueError naming the nodes of a cycle.
    """
    children: dict[str, list[str]] = {node: [] for node in parents}
    waiting = {node: len(set(above)) for node, above in parents.items()}
    for node, above in parents.items():
        for parent in set(above):
            children[parent].append(node)
    ready, done = [node for node, count in waiting.items() if count == 0], []
    while ready:
        node = ready.pop(0)
        done.append(node)
        for child in children[node]:
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
    if len(done) < len(parents):
        raise ValueError(f"the inputs form a cycle among {sorted(set(parents) - set(done))}")
    return done


def layers_of(parents: Parents, order: Sequence[str]) -> dict[str, int]:
    """Longest path from a source; a source itself sits just above its first reader."""
    depth: dict[str, int] = {}
    for node in order:
        depth[node] = max((depth[parent] + 1 for parent in parents[node]), default=0)
    first_reader: dict[str, int] = {}
    for node in order:
        for parent in parents[node]:
            first_reader[parent] = min(first_reader.get(parent, depth[node]), depth[node])
    for node in order:
        if not parents[node] and node in first_reader:
            depth[node] = first_reader[node] - 1
    return depth


def slots_of(
    parents: Parents, order: Sequence[str], depth: Mapping[str, int], implied: frozenset[tuple[str, str]]
) -> tuple[list[list[Slot]], dict[tuple[str, int], Slot]]:
    """One slot per node, and one per layer that a node's trunk crosses; linked to their neighbours."""
    layers: list[list[Slot]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    slots: dict[tuple[str, int], Slot] = {}
    last = {node: depth[node] for node in order}  # the deepest reader
    last_carried = dict(last)  # the deepest reader by an edge that is not implied
    for child in order:
        for parent in parents[child]:
            last[parent] = max(last[parent], depth[child])
            if (parent, child) not in implied:
                last_carried[parent] = max(last_carried[parent], depth[child])
    for node in order:
        for level in range(depth[node], max(last[node], depth[node] + 1)):
            slots[node, level] = Slot(node, level > depth[node], [], [])
            layers[level].append(slots[node, level])
            if level > depth[node]:
                link(slots[node, level - 1], slots[node, level], 1.0 if last_carried[node] > level else IMPLIED_PULL)
    for node in order:
        for parent in dict.fromkeys(parents[node]):
            pull = IMPLIED_PULL if (parent, node) in implied else 1.0
            link(slots[parent, depth[node] - 1], slots[node, depth[node]], pull)
    return layers, slots


def link(above: Slot, below: Slot, pull: float) -> None:
    """Makes two slots neighbours."""
    above.down.append((below, pull))
    below.up.append((above, pull))


def order_layers(layers: list[list[Slot]]) -> None:
    """Sorts each layer by the mean place of its neighbours, down and up in turn; the best order seen wins."""
    renumber(layers)
    best, fewest = [list(layer) for layer in layers], crossings(layers)
    for sweep in range(SWEEPS):
        downward = sweep % 2 == 0
        for layer in layers if downward else reversed(layers):
            key = {id(s): mean([(n.order, p) for n, p in (s.up if downward else s.down)], s.order) for s in layer}
            layer.sort(key=lambda s: (key[id(s)], s.order))
            renumber([layer])
        count = crossings(layers)
        if count < fewest:
            best, fewest = [list(layer) for layer in layers], count
    for layer, kept in zip(layers, best, strict=True):
        layer[:] = kept
    renumber(layers)


def renumber(layers: Sequence[Sequence[Slot]]) -> None:
    """Writes each slot's place in its layer, as a share of the layer's length."""
    for layer in layers:
        for index, slot in enumerate(layer):
            slot.order = (index + 0.5) / len(layer)


def mean(pulled: Sequence[tuple[float, float]], empty: float) -> float:
    """The mean of (value, weight) pairs, or `empty` for none."""
    weight = sum(w for _, w in pulled)
    return sum(v * w for v, w in pulled) / weight if weight else empty


def crossings(layers: Sequence[Sequence[Slot]]) -> int:
    """How many pairs of edges between neighbouring layers cross."""
    total = 0
    for layer in layers:
        seen: list[float] = []
        for end in [order for s in layer for order in sorted(n.order for n, _ in s.down)]:
            total += len(seen) - bisect_right(seen, end)
            insort(seen, end)
    return total


def place(layers: Sequence[Sequence[Slot]], room: Mapping[bool, float]) -> None:
    """Gives each slot its x: as near the mean of its neighbours as the order and the room (by trunk or not) allow.

    Sweeps down look up and sweeps up look down, which straightens a chain in one pass; the last look both ways.
    """
    halves = [[room[s.trunk] / 2 for s in layer] for layer in layers]
    for layer, half in zip(layers, halves, strict=True):
        at = -sum(half)
        for slot, h in zip(layer, half, strict=True):
            slot.x = at + h
            at += 2 * h
    steps = list(zip(layers, halves, strict=True))
    for sweep in range(SWEEPS):
        downward, last = sweep % 2 == 0, sweep >= SWEEPS - 4
        for layer, half in steps if downward else reversed(steps):
            seen = [s.up + s.down if last else s.up if downward else s.down for s in layer]
            wanted = [mean([(n.x, p) for n, p in near], s.x) for s, near in zip(layer, seen, strict=True)]
            pulls = [TRUNK_PULL * s.up[0][1] if s.trunk else 1.0 for s in layer]
            for slot, x in zip(layer, spread(wanted, pulls, half), strict=True):
                slot.x = x


def spread(wanted: Sequence[float], pulls: Sequence[float], halves: Sequence[float]) -> list[float]:
    """Places in the given order, none overlapping, with the least weighted squared distance to the wanted ones.

    Pool adjacent violators on the wanted places less the room already taken.
    """
    offsets = [0.0]
    for left, right in pairwise(halves):
        offsets.append(offsets[-1] + left + right)
    pools: list[list[float]] = []  # value, weight, members
    for want, pull, offset in zip(wanted, pulls, offsets):
        pools.append([want - offset, pull, 1])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            value, weight, members = pools.pop()
            low = pools[-1]
            low[0] = (low[0] * low[1] + value * weight) / (low[1] + weight)
            low[1] += weight
            low[2] += members
    values = [value for value, _, members in pools for _ in range(int(members))]
    return [value + offset for value, offset in zip(values, offsets)]


def implied_edges(parents: Parents, order: Sequence[str]) -> frozenset[tuple[str, str]]:
    """Edges whose parent also reaches the child through another of the child's parents."""
    bit = {node: 1 << index for index, node in enumerate(order)}
    above: dict[str, int] = {}  # all ancestors, as bits
    implied = set()
    for node in order:
        through = 0
        for parent in parents[node]:
            through |= above[parent]
        implied |= {(parent, node) for parent in parents[node] if through & bit[parent]}
        above[node] = through
        for parent in parents[node]:
            above[node] |= bit[parent]
    return frozenset(implied)
