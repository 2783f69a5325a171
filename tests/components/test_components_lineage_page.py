"""Lineage: a drawing that keeps its promises on any graph, a page that nothing in a manifest can break out of."""

from __future__ import annotations

import io
import json
import math
import re
import time
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from browser import needs_chromium, title_after
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import HOSTILE, fetched, manifest, parsed, small_run
from rich.console import Console
from scipy.optimize import minimize

from components.lineage_layout import Box, crossings, draw, spread
from components.lineage_page import lineage_svg, lineage_tree, render_lineage
from components.lineage_table import table_of


@st.composite
def graphs(draw_from: st.DrawFn) -> dict[str, list[str]]:
    """Random acyclic graphs of up to 24 nodes, given in any order."""
    size = draw_from(st.integers(1, 24))
    parents = {
        f"n{i}": [f"n{j}" for j in draw_from(st.lists(st.integers(0, i - 1), max_size=4, unique=True))] if i else []
        for i in range(size)
    }
    return {name: parents[name] for name in draw_from(st.permutations(sorted(parents)))}


def page_data(page: str) -> dict[str, dict[str, object]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    data: dict[str, dict[str, object]] = json.loads(found[1])
    return data


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_children_lie_beyond_their_parents_and_no_two_nodes_overlap(parents: dict[str, list[str]]) -> None:
    box = Box()
    drawing = draw(parents, box)
    along = 0 if drawing.sideways else 1
    size = box.width if drawing.sideways else box.height
    for child, above in parents.items():
        for parent in above:
            assert drawing.centres[child][along] - drawing.centres[parent][along] > size
            assert drawing.routes[parent, child][0] == drawing.centres[parent]
            assert drawing.routes[parent, child][-1] == drawing.centres[child]
    for (ax, ay), (bx, by) in combinations(drawing.centres.values(), 2):
        assert abs(ax - bx) >= box.width - 1e-6 or abs(ay - by) >= box.height - 1e-6
    for x, y in drawing.centres.values():
        assert box.width / 2 <= x <= drawing.width - box.width / 2
        assert box.height / 2 <= y <= drawing.height - box.height / 2


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_implied_edges_are_those_that_transitive_reduction_removes(parents: dict[str, list[str]]) -> None:
    graph = nx.DiGraph([(parent, child) for child, above in parents.items() for parent in above])
    reduced = set(nx.transitive_reduction(graph).edges) if graph.edges else set()
    assert draw(parents).implied == set(graph.edges) - reduced


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-300, 300), st.sampled_from([0.05, 1.0, 4.0]), st.floats(5, 60)), min_size=1, max_size=6
    )
)
def test_spread_is_the_least_squares_place_without_overlap(slots: list[tuple[float, float, float]]) -> None:
    wanted, pulls, halves = (np.array(column) for column in zip(*slots))
    room = halves[:-1] + halves[1:]
    placed = np.array(spread(wanted, pulls, halves))
    assert (np.diff(placed) >= room - 1e-6).all()

    def cost(x: np.ndarray) -> float:
        return float((pulls * (x - wanted) ** 2).sum())

    limits = [{"type": "ineq", "fun": lambda x, i=i: x[i + 1] - x[i] - room[i]} for i in range(len(room))]
    start = np.concatenate([[0.0], np.cumsum(room)])
    best = minimize(cost, start, constraints=limits, method="SLSQP", options={"maxiter": 300})
    assert cost(placed) <= best.fun + 1e-3 * max(1.0, best.fun)


def test_crossings_are_counted_as_pairs_that_cross() -> None:
    from components.lineage_layout import Slot, link, renumber

    above, below = [[Slot(f"{side}{i}", False, [], []) for i in range(6)] for side in "ab"]
    pairs = [(0, 4), (1, 1), (2, 5), (2, 0), (3, 3), (5, 2), (4, 4)]
    for a, b in pairs:
        link(above[a], below[b], 1.0)
    renumber([above, below])
    expected = sum((a - c) * (b - d) < 0 for (a, b), (c, d) in combinations(pairs, 2))
    assert crossings([above, below]) == expected


def test_a_chain_is_drawn_straight_whatever_reads_past_it() -> None:
    parents = {f"n{i}": [f"n{i - 1}", *(["n0"] if i > 1 else [])] if i else [] for i in range(7)}
    drawing = draw(parents)
    across = [c[1 if drawing.sideways else 0] for c in drawing.centres.values()]
    assert max(across) - min(across) < 4


def test_a_cycle_is_refused_naming_its_nodes() -> None:
    with pytest.raises(ValueError, match=r"cycle among .*'a', 'b'"):
        draw({"a": ["b"], "b": ["a"], "c": []})


def test_every_artifact_is_on_the_page_with_its_whole_manifest() -> None:
    run = small_run()
    page = render_lineage(run, focus=None)
    assert page_data(page)["nodes"] == {f"{m['kind']}={m['version']}": m for m in run}
    nodes = [a for tag, a in parsed(page).tags if tag == "g" and "node" in str(a.get("class")).split()]
    assert {a["data-key"] for a in nodes} == {f"{m['kind']}={m['version']}" for m in run}
    edges = [a for tag, a in parsed(page).tags if tag == "path" and "edge" in str(a.get("class")).split()]
    assert len(edges) == sum(len(m["inputs"]) for m in run)
    assert next(a for a in edges if "implied" in str(a["class"]))["data-from"] == f"images={run[0]['version']}"
    assert not list(fetched(page))


def test_nothing_in_a_manifest_breaks_out_of_the_page() -> None:
    bad = manifest(HOSTILE, HOSTILE, config={"note": HOSTILE + "</script><!--\u2028", "loss": math.nan})
    page = render_lineage([bad], focus=None)
    seen = parsed(page)
    assert [tag for tag, _ in seen.tags].count("script") == 2
    assert not any(tag == "img" or any(n.startswith("on") for n in a) for tag, a in seen.tags)
    [held] = page_data(page)["nodes"].values()
    assert held["config"] == {"note": HOSTILE + "</script><!--\u2028", "loss": "nan"}


def test_focus_dims_what_is_not_related() -> None:
    run = small_run()
    other = manifest("ingest", "images", config={"seed": 1}, version="f" * 16)
    svg = str(lineage_svg([*run, other], focus=run[2]["version"][:6]))
    css = {a["data-key"]: str(a["class"]) for tag, a in parsed(svg).tags if tag == "g" and "data-key" in a}
    assert "dim" in css[f"images={'f' * 16}"]
    assert "chosen" in css[f"filtered={run[2]['version']}"]
    assert sum("dim" in c for c in css.values()) == 1


def test_an_unknown_focus_is_refused() -> None:
    with pytest.raises(ValueError, match="'beef' names no artifact among the 5"):
        render_lineage(small_run(), focus="beef")


def test_an_input_without_a_manifest_is_drawn_as_missing() -> None:
    run = small_run()
    svg = str(lineage_svg(run[1:]))
    [missing] = [a for tag, a in parsed(svg).tags if tag == "g" and "missing" in str(a.get("class"))]
    assert missing["data-key"] == f"images={run[0]['version']}"
    assert page_data(render_lineage(run[1:], focus=None))["nodes"][str(missing["data-key"])] is None


def test_the_tree_shows_every_ancestor_and_opens_each_once() -> None:
    run = small_run()
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(lineage_tree(run, run[-1]["version"]))
    lines = console.export_text().splitlines()
    assert lines[0].startswith(f"backbone {run[-1]['version'][:8]}")
    assert [sum(m["kind"] in line.split() for line in lines) for m in run] == [2, 1, 1, 1, 1]
    depth = {
        m["kind"]: next(i for i, c in enumerate(next(li for li in lines if m["kind"] in li)) if c.isalpha())
        for m in run
    }
    assert depth["backbone"] < depth["selection"] < depth["filtered"] < depth["detections"]


def three_hundred() -> list[dict[str, object]]:
    """60 filtered sets of one pool, a backbone of each, three tasks of each backbone."""
    root = manifest("ingest", "images")
    run = [root]
    for i in range(60):
        kept = manifest("filter", "filtered", [root], version=f"{i:016x}")
        trained = manifest("pretrain", "backbone", [kept, root], version=f"{i:016x}")
        tasks = [manifest("finetune", kind, [trained], version=f"{i:016x}") for kind in ("pose", "normal", "albedo")]
        run += [kept, trained, *tasks]
    return run


def test_a_graph_of_three_hundred_is_drawn_within_seconds() -> None:
    run = three_hundred()
    start = time.perf_counter()
    page = render_lineage(run, focus=None)
    assert time.perf_counter() - start < 5
    assert len(page_data(page)["nodes"]) == 301


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(1, 5))
def test_cells_of_the_table_stand_within_the_rows_of_their_input_and_none_overlap(
    parents: dict[str, list[str]], kinds: int
) -> None:
    title = {node: f"k{int(node[1:]) % kinds}" for node in parents}
    table = table_of(parents, title, {})
    assert set(table.cells) == set(parents)
    taken = {(cell.column, cell.row + i) for cell in table.cells.values() for i in range(cell.rows)}
    assert len(taken) == sum(cell.rows for cell in table.cells.values())
    for node, cell in table.cells.items():
        assert table.columns[cell.column] == title[node] and cell.rows >= 1 and cell.row >= 0
        left = [table.cells[p] for p in parents[node] if table.cells[p].column < cell.column]
        if left:
            widest = max(each.column for each in left)
            within = [p.row <= cell.row and cell.row + cell.rows <= p.row + p.rows for p in left if p.column == widest]
            assert any(within)


def test_the_columns_of_the_table_are_the_order_of_the_steps() -> None:
    run = small_run()
    run.append(manifest("evaluate", "evaluation", [run[-1]]))
    run.append(manifest("finetune", "pose", [run[-2]]))
    page = parsed(render_lineage(run, focus=None))
    cells = [str(a["style"]) for tag, a in page.tags if "cell" in str(a.get("class")).split()]
    places = [tuple(int(n) for n in re.findall(r"\d+", style)) for style in cells]
    assert sorted(places) == [(2, column, 1) for column in range(1, 8)]
    titles = ["images", "detections", "filtered", "selection", "backbone", "backbone eval.", "pose"]
    assert re.findall(r"grid-column: \d+\">([^<]+)</b>", render_lineage(run, focus=None)) == titles


READABLE = """
  const versions = document.getElementById('versions'), seen = versions.getBoundingClientRect();
  const all = [...document.querySelectorAll('.cell')];
  const shown = all.filter((c) => { const r = c.getBoundingClientRect();
    return r.left >= seen.left && r.right <= seen.right && r.width >= c.firstChild.scrollWidth && r.height >= 12; });
  const opened = versions.hidden ? 'drawing' : 'table';
  if (opened === 'table') all[200].click();
  document.title = [opened, all.length, shown.length, document.querySelectorAll('.cell.kin').length,
    Math.min(...all.map((c) => parseFloat(getComputedStyle(c).fontSize)))].join(' ');
"""


@needs_chromium
def test_three_hundred_open_as_a_table_that_can_be_read_and_few_as_a_drawing(tmp_path) -> None:
    run = three_hundred()
    opened, cells, shown, kin, size = title_after(render_lineage(run), READABLE, tmp_path).split()
    assert (opened, cells, shown) == ("table", "301", "301")
    assert 3 <= int(kin) <= 6 and float(size) >= 10
    assert title_after(render_lineage(small_run()), READABLE, tmp_path).split()[:2] == ["drawing", "5"]
