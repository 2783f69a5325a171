"""Small charts as inline SVG: no script, no network, colours from the page's CSS variables (light and dark).

Every function takes plain numbers and returns markup whose texts are escaped. Sizes are in CSS pixels at scale 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from curation.audit.axes import Number, Scale, finite, number, short_number, wants_log

WIDTH = 460  # a chart's cell in the page's grid: texts keep their size at 1280 px and shrink little on a phone
COLOURS = 6  # --c1 .. --c6 of the stylesheet
MUTED = frozenset({"before", "dropped", "baseline", "pool"})
CHARACTER = 6.8  # mean advance of a 11.5 px character of the widest of the usual sans-serif fonts
POINTS = 320  # a line is drawn with at most this many points: two per pixel column show nothing more


@dataclass(frozen=True)
class Series:
    """One named run of values; `x` is empty for charts over labels."""

    name: str
    y: Sequence[Number | None]
    x: Sequence[Number] = ()


def colours(names: Sequence[str]) -> list[str]:
    """The class of each series: the palette in order, except that what stands for comparison is drawn muted."""
    palette = iter(f"c{i % COLOURS + 1}" for i in range(len(names)))
    return ["muted" if len(names) > 1 and name.lower() in MUTED else next(palette) for name in names]


def bars(labels: Sequence[str], series: Sequence[Series]) -> Markup:
    """Horizontal bars with their values: a group per label, in it a bar for each series that has a value there.

    Raises ValueError when a series and the labels differ in length.
    """
    for one in series:
        if len(one.y) != len(labels):
            raise ValueError(f"bars: series {one.name!r} has {len(one.y)} values for {len(labels)} labels")
    css = colours([one.name for one in series])
    thick = 15 if len(series) == 1 else 11
    left = min(160.0, max((len(label) for label in labels), default=0) * CHARACTER + 14)
    values = finite(v for one in series for v in one.y)
    scale = Scale(min([0.0, *values]), max([0.0, *values]) or 1.0, left, WIDTH - 64)
    parts, top = [], 4
    for row, label in enumerate(labels):
        held = [i for i, one in enumerate(series) if finite([one.y[row]])] or list(range(min(len(series), 1)))
        parts.append(label_text(label, left - 8, top + thick * len(held) / 2 + 4, left - 8))
        for index in held:
            name = f"{label} · {series[index].name}" if series[index].name else label
            parts.append(bar(scale, series[index].y[row], top, thick - 1, css[index], name))
            top += thick
        top += 9
    return svg(WIDTH, top, parts)


def bar(scale: Scale, value: Number | None, top: float, thick: float, css: str, name: str) -> Markup:
    """One horizontal bar from zero and its value behind the end."""
    tip = f"{name}: {number(value)}"
    drawn = finite([value])
    zero = scale(0.0)
    end = scale(drawn[0]) if drawn else zero
    left, width = min(zero, end), max(abs(end - zero), 1.0 if drawn and drawn[0] else 0.0)
    return Markup(
        '<g><title>{}</title><rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" rx="2"/>'
    ).format(tip, css, left, top, width, thick) + Markup(
        '<text class="value" x="{:.1f}" y="{:.1f}">{}</text></g>'
    ).format(max(end, zero) + 6, top + thick / 2 + 4, number(value) if drawn else "–")


def label_text(label: str, x: float, y: float, width: float) -> Markup:
    """A right-aligned label cut to `width` pixels; the whole of it on hover."""
    room = max(int(width / CHARACTER), 4)
    shown = label if len(label) <= room else label[: room - 1] + "…"
    return Markup('<text class="label" text-anchor="end" x="{:.1f}" y="{:.1f}">{}<title>{}</title></text>').format(
        x, y, shown, label
    )


def histogram(edges: Sequence[float], counts: Sequence[int], thresholds: Sequence[float], unit: str) -> Markup:
    """Counts per bin over a value axis, with each threshold as a line; geometric bins get a logarithmic axis.

    Raises ValueError unless there is one edge more than counts, and edges ascend.
    """
    if len(edges) != len(counts) + 1 or list(edges) != sorted(edges) or len(finite(edges)) != len(edges):
        raise ValueError(
            f"histogram: {len(counts)} counts need {len(counts) + 1} ascending finite edges, got {list(edges)}"
        )
    reach = [*edges, *thresholds]
    height, left, base = 190, 44, 150
    x = Scale(min(reach), max(reach), left, WIDTH - 20, log=min(reach) > 0 and is_geometric(edges))
    y = Scale(0.0, max([*counts, 1]) * 1.04, base, 22)
    parts = [*y_axis(y, left), *x_axis(x, base, unit)]
    for index, count in enumerate(counts):
        start, end = x(edges[index]), x(edges[index + 1])
        parts.append(
            Markup(
                '<rect class="bar c1" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
            ).format(
                start,
                y(count),
                max(end - start - 1, 0.8),
                base - y(count),
                f"{number(edges[index])} to {number(edges[index + 1])} {unit}: {number(count)}",
            )
        )
    parts += [threshold_line(x(value), f"threshold {number(value)}", base) for value in finite(thresholds)]
    return svg(WIDTH, height, parts)


def is_geometric(edges: Sequence[float]) -> bool:
    """Whether each edge is about the same multiple of the one before, and not about the same distance from it."""
    if len(edges) < 4 or edges[0] <= 0:
        return False
    ratios, steps = [b / a for a, b in pairwise(edges)], [b - a for a, b in pairwise(edges)]
    return max(ratios) - 1 < 1.5 * (min(ratios) - 1) and max(steps) > 2 * min(steps)


def threshold_line(x: float, text: str, base: float) -> Markup:
    """A vertical line with its text beside it, on the side that has room."""
    anchor, shift = ("end", -6) if x > WIDTH * 0.6 else ("start", 6)
    return Markup(
        '<line class="threshold" x1="{0:.1f}" x2="{0:.1f}" y1="6" y2="{1}"/>'
        '<text class="threshold-text" text-anchor="{2}" x="{3:.1f}" y="15">{4}</text>'
    ).format(x, base, anchor, x + shift, text)


def lines(series: Sequence[Series], x_label: str, y_label: str) -> Markup:
    """Lines over a common x axis; the y axis is logarithmic when the range demands it; gaps where not finite.

    Raises ValueError when a series has x and y of different lengths.
    """
    for one in series:
        if len(one.x) != len(one.y):
            raise ValueError(f"lines: series {one.name!r} has {len(one.x)} x values and {len(one.y)} y values")
    ys, xs = finite(v for one in series for v in one.y), finite(v for one in series for v in one.x)
    height, left, base = 230, 52, 188
    x = Scale(min(xs, default=0.0), max(xs, default=1.0), left, WIDTH - 20)
    y = y_scale(ys, base)
    y_name = f"{y_label} (log)" if y.log else y_label
    parts = [
        *y_axis(y, left),
        *x_axis(x, base, x_label),
        Markup('<text class="axis" x="4" y="11">{}</text>').format(y_name),
    ]
    css = colours([one.name for one in series])
    parts += [line(one, x, y, css[index]) for index, one in enumerate(series)]
    return svg(WIDTH, height, parts)


def y_scale(values: Sequence[float], base: float) -> Scale:
    """A scale with a little air; from zero when zero is near the data."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if wants_log(values):
        return Scale(low / 1.15, high * 1.15, base, 24, log=True)
    if 0 <= low < 0.5 * high:
        low = 0.0
    air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Scale(low if low == 0 else low - air, high + air, base, 24)


def line(series: Series, x: Scale, y: Scale, css: str) -> Markup:
    """One series: a path with gaps, and dots when the points are few."""
    points = thinned([(float(a), b) for a, b in zip(series.x, series.y, strict=True) if finite([a])])
    path, pen, dots = [], "M", []
    for at, value in points:
        if not finite([value]) or (y.log and value is not None and value <= 0):
            pen = "M"
            continue
        px, py = x(at), y(float(value or 0.0))
        path.append(f"{pen}{px:.1f} {py:.1f}")
        dots.append((px, py, f"{series.name} at {number(at)}: {number(value)}"))
        pen = "L"
    body = Markup('<path class="line {}" d="{}"><title>{}</title></path>').format(css, "".join(path), series.name)
    if len(dots) <= 16:
        body += Markup("").join(
            Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2.8"><title>{}</title></circle>').format(
                css, *dot
            )
            for dot in dots
        )
    return body


def thinned(points: list[tuple[float, Number | None]]) -> list[tuple[float, Number | None]]:
    """At most POINTS points: the lowest and the highest of each run, in order, so spikes and gaps survive."""
    if len(points) <= POINTS:
        return points
    size = -(-len(points) * 3 // POINTS)
    kept: list[tuple[float, Number | None]] = []
    for start in range(0, len(points), size):
        run = points[start : start + size]
        drawn = [i for i, (_, value) in enumerate(run) if finite([value])]
        chosen = (
            {min(drawn, key=lambda i: run[i][1] or 0.0), max(drawn, key=lambda i: run[i][1] or 0.0)} if drawn else set()
        )
        chosen |= {i for i in range(len(run)) if i not in drawn and (i == 0 or i - 1 in drawn)}
        kept += [run[i] for i in sorted(chosen)]
    return kept


def sparkline(values: Sequence[Number | None]) -> Markup:
    """A line the height of a word, for a table cell; nothing when fewer than two values can be drawn."""
    drawn = finite(values)
    if len(drawn) < 2:
        return Markup("")
    x, y = Scale(0, len(drawn) - 1, 2, 88), Scale(min(drawn), max(drawn), 18, 3)
    points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(drawn))
    tip = f"from {number(drawn[0])} to {number(drawn[-1])}"
    return Markup(
        '<svg class="spark" viewBox="0 0 90 22" width="90" height="22" role="img"><title>{}</title>'
        '<polyline class="line c1" points="{}"/></svg>'
    ).format(tip, points)


def y_axis(y: Scale, left: float) -> list[Markup]:
    """Horizontal grid lines with their values."""
    form = Markup(
        '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
        '<text class="tick" text-anchor="end" x="{3}" y="{4:.1f}">{5}</text>'
    )
    return [form.format(left, WIDTH - 20, y(t), left - 7, y(t) + 4, short_number(t)) for t in y.ticks(5)]


def x_axis(x: Scale, base: float, name: str) -> list[Markup]:
    """The base line, values below it, and the axis name below those."""
    form = Markup('<text class="tick" text-anchor="middle" x="{:.1f}" y="{}">{}</text>')
    ticks = [form.format(x(t), base + 16, short_number(t)) for t in x.ticks(6)]
    middle = (x.start + x.end) / 2
    return [
        Markup('<line class="base" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(x.start, x.end, base, base),
        *ticks,
        Markup('<text class="axis" text-anchor="middle" x="{}" y="{}">{}</text>').format(middle, base + 33, name),
    ]


def svg(width: float, height: float, parts: Sequence[Markup]) -> Markup:
    """The drawing as one element that scales down with its column, never up beyond its natural size by much."""
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img">').format(width, round(height, 1)) + Markup(
        "{}</svg>"
    ).format(Markup("").join(escape(part) for part in parts))
