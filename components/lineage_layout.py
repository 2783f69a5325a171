"""A layered drawing of a directed acyclic graph: which row, which place in the row, which way the edges run.

Layers by longest path, order by barycentres (Sugiyama, Tagawa and Toda 1981), places by least squares. All edges of one
source share one trunk through the layers they cross, so an artifact that every later step reads stays one line.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SWEEPS = 24
TRUNK_WIDTH = 14.0
TRUNK_PULL = 4.0  # how much more a trunk wants to be straight than a node wants to be centred

Parents = Mapping[str, Sequence[str]]
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """The size of a node and the room around it, in pixels."""

    width: float = 190.0
    height: float = 44.0
    gap: float = 18.0
    rise: float = 34.0  # between layers


@dataclass(frozen=True)
class Drawing:
    """Centres of the nodes, a way for each (parent, child), and the edges that a longer way already implies."""

    centres: dict[str, Point]
    routes: dict[tuple[str, str], list[Point]]
    implied: frozenset[tuple[str, str]]
    width: float
    height: float


@dataclass
class Slot:
    """A place in a layer: a node, or the trunk of `node` passing through."""

    node: str
    trunk: bool
    up: list[Slot]
    down: list[Slot]
    x: float = 0.0
    order: float = 0.0


def draw(parents: Parents, box: Box | None = None) -> Drawing:
    """Places every key of `parents` (node -> the nodes it was made from; all of them keys).

    Raises ValueError when the graph has a cycle.
    """
    box = box or Box()
    order = topological(parents)
    depth = layers_of(parents, order)
    layers, slots = slots_of(parents, order, depth)
    order_layers(layers)
    place(layers, box)
    left = min((s.x - half(s, box) for layer in layers for s in layer), default=0.0)
    right = max((s.x + half(s, box) for layer in layers for s in layer), default=0.0)
    pitch, margin = box.height + box.rise, 12.0
    centre = {
        id(s): (s.x - left + margin, margin + box.height / 2 + level * pitch)
        for level, layer in enumerate(layers)
        for s in layer
    }
    return Drawing(
        centres={node: centre[id(slots[node, depth[node]])] for node in order},
        routes={
            (parent, child): [centre[id(slots[parent, level])] for level in range(depth[parent], depth[child])]
            + [centre[id(slots[child, depth[child]])]]
            for child in order
            for parent in parents[child]
        },
        implied=implied_edges(parents, order),
        width=right - left + 2 * margin,
        height=max(len(layers) * pitch - box.rise, 0) + 2 * margin,
    )


def half(slot: Slot, box: Box) -> float:
    """Half the room that a slot takes in its layer."""
    return (TRUNK_WIDTH if slot.trunk else box.width + box.gap) / 2


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
    parents: Parents, order: Sequence[str], depth: Mapping[str, int]
) -> tuple[list[list[Slot]], dict[tuple[str, int], Slot]]:
    """One slot per node, and one per layer that a node's trunk crosses; linked to their neighbours."""
    layers: list[list[Slot]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    slots: dict[tuple[str, int], Slot] = {}
    last_reader = {node: depth[node] for node in order}
    for node in order:
        for parent in parents[node]:
            last_reader[parent] = max(last_reader[parent], depth[node])
    for node in order:
        for level in range(depth[node], max(last_reader[node], depth[node] + 1)):
            slot = Slot(node, level > depth[node], [], [])
            slots[node, level] = slot
            layers[level].append(slot)
            if slot.trunk:
                link(slots[node, level - 1], slot)
    for node in order:
        for parent in dict.fromkeys(parents[node]):
            link(slots[parent, depth[node] - 1], slots[node, depth[node]])
    return layers, slots


def link(above: Slot, below: Slot) -> None:
    """Makes two slots neighbours."""
    above.down.append(below)
    below.up.append(above)


def order_layers(layers: list[list[Slot]]) -> None:
    """Sorts each layer by the mean place of its neighbours, down and up in turn; the best order seen wins."""
    renumber(layers)
    best, fewest = [list(layer) for layer in layers], crossings(layers)
    for sweep in range(SWEEPS):
        downward = sweep % 2 == 0
        for layer in layers if downward else reversed(layers):
            key = {id(s): mean([n.order for n in (s.up if downward else s.down)], s.order) for s in layer}
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


def mean(values: Sequence[float], empty: float) -> float:
    """The arithmetic mean, or `empty` for no values."""
    return sum(values) / len(values) if values else empty


def crossings(layers: Sequence[Sequence[Slot]]) -> int:
    """How many pairs of edges between neighbouring layers cross."""
    total = 0
    for layer in layers:
        seen: list[float] = []
        for end in [n.order for s in layer for n in sorted(s.down, key=lambda n: n.order)]:
            total += len(seen) - bisect_right(seen, end)
            insort(seen, end)
    return total


def place(layers: Sequence[Sequence[Slot]], box: Box) -> None:
    """Gives each slot an x: as near the mean of its neighbours as the order and the widths allow."""
    for layer in layers:
        at = 0.0
        for slot in layer:
            slot.x = at + half(slot, box)
            at += 2 * half(slot, box)
        for slot in layer:
            slot.x -= at / 2
    for sweep in range(SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = [mean([n.x for n in (s.up + s.down)], s.x) for s in layer]
            pulls = [TRUNK_PULL if s.trunk else 1.0 for s in layer]
            for slot, x in zip(layer, spread(wanted, pulls, [half(s, box) for s in layer]), strict=True):
                slot.x = x


def spread(wanted: Sequence[float], pulls: Sequence[float], halves: Sequence[float]) -> list[float]:
    """Places in the given order, none overlapping, with the least weighted squared distance to the wanted ones.

    Pool adjacent violators on the wanted places less the room already taken.
    """
    offsets = [0.0]
    for left, right in zip(halves, halves[1:]):
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
