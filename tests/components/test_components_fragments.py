"""Fragments to HTML: every section is drawn, nothing in it can become markup, charts say what numbers say."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import HOSTILE, every_section, fetched, noise_jpeg, parsed

from components.fragments import render_fragment
from curation.audit import axes, charts


def section(**values: object) -> dict[str, object]:
    return {"title": "part", "sections": [{"title": "part", **values}]}


def rects(svg: str) -> list[dict[str, str]]:
    found = [dict(re.findall(r'([\w-]+)="([^"]*)"', tag)) for tag in re.findall(r"<rect [^>]*>", svg)]
    return [r for r in found if r["class"].startswith("bar")]


def test_every_section_type_is_drawn_with_its_text() -> None:
    page = render_fragment(every_section("Some words"))
    seen = parsed(page)
    assert sum(tag == "section" for tag, _ in seen.tags) == 7
    for kind in ("text", "table", "bars", "histogram", "lines", "images", "funnel"):
        assert any(tag == "section" and kind in str(a["class"]).split() for tag, a in seen.tags), kind
    assert "".join(seen.text).count("Some words") >= 7 * 2


def test_text_from_the_web_never_becomes_markup() -> None:
    plain, hostile = parsed(render_fragment(every_section("x"))), parsed(render_fragment(every_section(HOSTILE)))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert not any(name.startswith("on") for _, attributes in hostile.tags for name in attributes)
    assert HOSTILE in "".join(hostile.text)
    assert all(
        address.startswith("data:image/jpeg;base64,") for address in fetched(render_fragment(every_section("x")))
    )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"type": "pie"}, "pie"),
        ({"type": "bars", "labels": ["a"]}, "series"),
        ({"type": "bars", "labels": ["a"], "series": [{"name": "n", "values": [1, 2]}]}, "2 values for 1 labels"),
        ({"type": "histogram", "edges": [0, 1], "counts": [1, 2]}, "3 ascending"),
        ({"type": "histogram", "edges": [0, 2, 1], "counts": [1, 2]}, "ascending"),
        ({"type": "lines", "series": [{"name": "n", "x": [1], "y": [1, 2]}]}, "1 x values and 2 y values"),
        ({"type": "table", "columns": ["a"], "rows": [[1, 2]]}, "2 cells for 1 columns"),
        ({"type": "images", "items": [{"jpeg": '"><script>', "caption": "bad.jpg"}]}, "bad.jpg"),
        ({"type": "images", "items": [{"jpeg": "aGVsbG8=", "caption": "text.jpg"}]}, "text.jpg"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)) as error:
        render_fragment(section(**wrong))
    assert "part" in str(error.value)


def test_bar_lengths_are_proportional_to_their_values() -> None:
    drawn = rects(str(charts.bars(["a", "b", "c"], [charts.Series("n", [200, 50, 0])])))
    widths = [float(r["width"]) for r in drawn]
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.01)
    assert widths[2] == 0


def test_a_series_without_a_value_takes_no_room() -> None:
    svg = str(charts.bars(["a", "b"], [charts.Series("now", [3, None]), charts.Series("before", [None, 6])]))
    assert [(r["class"], float(r["width"])) for r in rects(svg)] == [
        ("bar c1", pytest.approx(float(rects(svg)[1]["width"]) / 2, abs=0.1)),
        ("bar muted", float(rects(svg)[1]["width"])),
    ]


def test_what_was_before_is_drawn_muted() -> None:
    assert charts.colours(["before", "after"]) == ["muted", "c1"]
    assert charts.colours(["before"]) == ["c1"]
    assert charts.colours(["a", "b"]) == ["c1", "c2"]


def test_the_threshold_stands_at_its_value_among_the_bins() -> None:
    svg = str(charts.histogram([0, 10, 20, 30], [1, 4, 2], [25.0], "px"))
    bins = rects(svg)
    line = re.search(r'<line class="threshold" x1="([\d.]+)"', svg)
    assert line is not None
    start, width = float(bins[2]["x"]), float(bins[1]["x"]) - float(bins[0]["x"])
    assert float(line[1]) == pytest.approx(start + width / 2, abs=0.2)
    heights = [float(r["height"]) for r in bins]
    assert heights[1] / heights[0] == pytest.approx(4, rel=0.02)
    assert "threshold 25" in svg


def test_geometric_bins_are_drawn_equally_wide() -> None:
    widths = [float(r["width"]) for r in rects(str(charts.histogram([8, 16, 32, 64, 128], [1, 2, 3, 4], [], "px")))]
    assert max(widths) - min(widths) < 0.3
    assert not charts.is_geometric([10, 20, 30, 40])
    assert not charts.is_geometric([0, 1, 2, 4])


def test_a_threshold_outside_the_bins_is_still_on_the_page() -> None:
    svg = str(charts.histogram([0, 1], [3], [4.0], ""))
    line = re.search(r'<line class="threshold" x1="([\d.]+)"', svg)
    assert line is not None and float(line[1]) <= charts.WIDTH


def test_the_axis_is_logarithmic_only_when_the_range_demands_it() -> None:
    wide = [charts.Series("loss", [1000.0, 10.0, 0.1], [0, 1, 2])]
    assert "(log)" in str(charts.lines(wide, "step", "loss"))
    narrow = [charts.Series("loss", [3.0, 2.0, 1.0], [0, 1, 2])]
    assert "(log)" not in str(charts.lines(narrow, "step", "loss"))
    crossing = [charts.Series("loss", [1000.0, 10.0, -0.1], [0, 1, 2])]
    assert "(log)" not in str(charts.lines(crossing, "step", "loss"))


def test_a_line_has_a_gap_where_the_value_is_not_a_number() -> None:
    svg = str(charts.lines([charts.Series("loss", [3.0, 2.5, math.nan, 2.0, 1.0], range(5))], "step", "loss"))
    path = re.search(r'class="line c1" d="([^"]*)"', svg)
    assert path is not None
    assert (path[1].count("M"), path[1].count("L")) == (2, 2)
    assert "nan" not in svg.lower()


def test_thinning_keeps_spikes_gaps_and_order() -> None:
    points: list[tuple[float, float | None]] = [(float(i), 1.0 + i % 3 * 0.01) for i in range(20_000)]
    points[7_777] = (7_777.0, 99.0)
    points[12_345] = (12_345.0, -99.0)
    points[15_000] = (15_000.0, math.nan)
    kept = charts.thinned(points)
    assert len(kept) <= charts.POINTS
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)
    assert {(7_777.0, 99.0), (12_345.0, -99.0)} <= set(kept)
    assert any(y is not None and math.isnan(y) for _, y in kept)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(3, 8))
def test_ticks_are_round_evenly_spaced_and_inside(low: float, span: float, count: int) -> None:
    high = low + span
    ticks = axes.nice_ticks(low, high, count)
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert all(low - slack <= t <= high + slack for t in ticks)
    assert len(ticks) <= count + 1
    steps = [b - a for a, b in pairwise(ticks)]
    assert all(s == pytest.approx(steps[0], rel=1e-3, abs=slack) for s in steps)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (0.123456, "0.1235"), (None, "–"), (2.0, "2"), (math.nan, "nan"), (98765.4, "98,765")],
)
def test_numbers_read_as_people_write_them(value: float | None, text: str) -> None:
    assert axes.number(value) == text


def test_durations_and_sizes() -> None:
    assert [axes.duration(s) for s in (0.42, 12.34, 245, 7800)] == ["0.42 s", "12.3 s", "4 min 05 s", "2 h 10 min"]
    assert [axes.byte_size(n) for n in (812, 3_400_000, 2_500_000_000_000)] == ["812 B", "3.4 MB", "2.5 TB"]


def test_long_tables_and_long_bars_say_what_they_left_out() -> None:
    table = render_fragment(section(type="table", columns=["n"], rows=[[i] for i in range(1200)]))
    assert "The first 500 of 1,200 rows." in table
    bars = section(type="bars", labels=list("abcdefgh") * 10, series=[{"name": "n", "values": [1] * 80}])
    assert "The first 40 of 80 bars." in render_fragment(bars)
    assert len(rects(render_fragment(bars))) == 40


def test_a_contact_sheet_keeps_groups_apart_and_outlines_the_marked() -> None:
    items = [
        {"jpeg": noise_jpeg(i), "caption": f"{i}.jpg", "group": f"group {i // 2}", "mark": i % 2 == 0} for i in range(4)
    ]
    seen = parsed(render_fragment(section(type="images", items=items)))
    assert sum(tag == "div" and "sheet" in str(a.get("class")).split() for tag, a in seen.tags) == 2
    assert [a["class"] for tag, a in seen.tags if tag == "figure"] == ["mark", "", "mark", ""]
    assert all(a["width"] == a["height"] == "96" for tag, a in seen.tags if tag == "img")


def test_the_funnel_draws_shares_of_the_first_step_and_names_the_silent_ones() -> None:
    steps = [
        {"name": "ingest", "rows_in": 200, "kept": 150, "dropped": {"too_small": 40, "truncated": 10}},
        {"name": "score", "rows_in": 150, "kept": 150, "dropped": {}},
        {"name": "filter", "rows_in": 150, "kept": 50, "dropped": {"no_person": 100}},
    ]
    page = render_fragment(section(type="funnel", steps=steps))
    assert re.findall(r'<i class="kept" style="width:([\d.]+)%', page) == ["75.000", "25.000"]
    assert re.findall(r'<i class="gone" style="width:([\d.]+)%', page) == ["25.000", "50.000"]
    assert "Nothing was dropped by score." in page
    assert page.index("too small") < page.index("truncated")
