"""Fragments to HTML: what a stage measured, as tables, charts and contact sheets that a person can read.

A fragment is `{"title": str, "sections": [section, ...]}` of plain values (no HTML); a section's `type` is one of
text, table, bars, histogram, lines, images, funnel. Everything in it may come from the web, so all of it is escaped.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from curation.audit import charts
from curation.audit.axes import byte_size, duration, finite, number, short_number
from curation.audit.charts import Series

if TYPE_CHECKING:
    from jinja2 import Environment

Section = Mapping[str, Any]

TABLE_ROWS = 500  # more rows than this belong in a file, not on a page
BAR_LABELS = 40
NARROW_COLUMNS = 3  # a table of so many columns stands beside a chart; a wider one has a row of its own
ROW_LOW, ROW_HIGH = 118, 190  # px: a contact sheet's rows; high when all its pictures fit one row of ROW_WIDTH
ROW_WIDTH = 940


def render_fragment(fragment: Mapping[str, Any], *, title: bool = True) -> str:
    """A fragment as HTML, to stand inside a page that carries the stylesheet (see `render_page`).

    `title=False` leaves the fragment's own heading out. Raises ValueError for a section type that is not known, a
    section that lacks a key, or values that cannot be drawn, naming the section.
    """
    blocks = [render_section(section) for section in fragment.get("sections", [])]
    heading = fragment.get("title", "") if title else ""
    return environment().get_template("fragment.html.j2").render(title=heading, blocks=blocks)


def render_section(section: Section) -> Markup:
    """One section in its frame: heading, body, note.

    Raises ValueError for an unknown type and for a section whose values do not fit it.
    """
    kind, name = section.get("type"), section.get("title", "")
    if kind not in BODIES:
        raise ValueError(f"section {name!r} has the type {kind!r}; the known types are {sorted(BODIES)}")
    try:
        body, note = BODIES[kind](section)
    except KeyError as missing:
        raise ValueError(f"section {name!r} of type {kind!r} has no {missing.args[0]!r}") from missing
    except ValueError as error:
        raise ValueError(f"section {name!r} of type {kind!r}: {error}") from error
    wide = kind in ("images", "text", "funnel") or (kind == "table" and len(section["columns"]) > NARROW_COLUMNS)
    template = environment().get_template("section.html.j2")
    notes = [n for n in (section.get("note"), note) if n]
    return Markup(template.render(kind=kind, title=name, body=body, notes=notes, wide=wide))


def text_body(section: Section) -> tuple[Markup, str]:
    """Paragraphs, split at blank lines."""
    paragraphs = [p.strip() for p in str(section["body"]).split("\n\n") if p.strip()]
    return Markup("").join(Markup("<p>{}</p>").format(p) for p in paragraphs), ""


def table_body(section: Section) -> tuple[Markup, str]:
    """A table whose numeric columns are set flush right."""
    columns, rows = list(section["columns"]), list(section["rows"])
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"a row has {len(row)} cells for {len(columns)} columns: {list(row)!r}")
    numeric = [is_numeric([row[i] for row in rows]) for i in range(len(columns))]
    shown = [[cell_text(cell) for cell in row] for row in rows[:TABLE_ROWS]]
    note = f"The first {TABLE_ROWS} of {len(rows):,} rows." if len(rows) > TABLE_ROWS else ""
    body = environment().get_template("table.html.j2").render(columns=columns, rows=shown, numeric=numeric)
    return Markup(body), note


def is_numeric(cells: Sequence[Any]) -> bool:
    """Whether a column holds numbers only, nulls aside."""
    held = [c for c in cells if c is not None]
    return bool(held) and all(isinstance(c, int | float) and not isinstance(c, bool) for c in held)


def cell_text(cell: Any) -> str:
    """A table cell as text: numbers formatted, null as a dash, markup (from our own charts only) as it is."""
    if isinstance(cell, Markup):
        return cell
    return number(cell) if cell is None or isinstance(cell, int | float) else str(cell)


def bars_body(section: Section) -> tuple[Markup, str]:
    """Horizontal bars and, for more than one series, their legend."""
    labels = [str(label) for label in section["labels"]]
    series = [Series(str(s.get("name", "")), s["values"]) for s in section["series"]]
    drawing = charts.bars(labels, series)
    note = ""
    if len(labels) > BAR_LABELS:
        drawing = charts.bars(labels[:BAR_LABELS], [Series(s.name, s.y[:BAR_LABELS]) for s in series])
        note = f"The first {BAR_LABELS} of {len(labels):,} bars."
    return legend(series) + drawing, note


def histogram_body(section: Section) -> tuple[Markup, str]:
    """A histogram; `threshold` is a number, a list of them or null, and its meaning the note's to say."""
    given = section.get("threshold")
    thresholds = given if isinstance(given, list | tuple) else [given]
    unit = str(section.get("unit") or "")
    return charts.histogram(section["edges"], section["counts"], finite(thresholds), unit), ""


def lines_body(section: Section) -> tuple[Markup, str]:
    """Lines and their legend."""
    series = [Series(str(s.get("name", "")), s["y"], s["x"]) for s in section["series"]]
    drawing = charts.lines(series, str(section.get("x_label", "")), str(section.get("y_label", "")))
    return legend(series) + drawing, ""


def legend(series: Sequence[Series]) -> Markup:
    """Names beside their colours; nothing for a single series, which the heading names."""
    if len(series) < 2:
        return Markup("")
    css = charts.colours([one.name for one in series])
    item = Markup('<li><i class="key {}"></i>{}</li>')
    return Markup('<ul class="legend">{}</ul>').format(
        Markup("").join(item.format(c, one.name) for c, one in zip(css, series, strict=True))
    )


def images_body(section: Section) -> tuple[Markup, str]:
    """A contact sheet in rows of one height; items of one `group` stand together, items with `mark` are outlined."""
    items = [sheet_item(item) for item in section["items"]]
    groups: list[tuple[str, list[dict[str, Any]]]] = []
    for item in items:
        if not groups or groups[-1][0] != item["group"]:
            groups.append((item["group"], []))
        groups[-1][1].append(item)
    height = ROW_HIGH if sum(item["aspect"] for item in items) * ROW_HIGH < ROW_WIDTH else ROW_LOW
    return Markup(environment().get_template("images.html.j2").render(groups=groups, height=height)), ""


def sheet_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item with its aspect ratio, read from the JPEG's header.

    Raises ValueError when the picture is not base64 of a JPEG.
    """
    from PIL import Image, UnidentifiedImageError

    caption = str(item.get("caption") or "")
    try:
        with Image.open(io.BytesIO(base64.b64decode(item["jpeg"], validate=True)), formats=["JPEG"]) as picture:
            width, height = picture.size
    except (binascii.Error, UnidentifiedImageError) as error:
        raise ValueError(f"item {caption!r}: `jpeg` is not the base64 of a JPEG ({error})") from error
    return {
        "jpeg": item["jpeg"],
        "width": width,
        "height": height,
        "aspect": round(width / height, 3),
        "caption": caption,
        "sub": str(item.get("sub") or ""),
        "group": str(item.get("group") or ""),
        "mark": bool(item.get("mark")),
    }


def funnel_body(section: Section) -> tuple[Markup, str]:
    """Steps as bars against the most rows of any: what is kept, what goes, and why.

    Steps after the first that let nothing go are named in the note only.
    """
    steps = [
        {**step, "rows_in": int(step["rows_in"]), "gone": int(step["rows_in"]) - int(step["kept"])}
        for step in section["steps"]
    ]
    most = max([step["rows_in"] for step in steps], default=0) or 1
    quiet = [str(step["name"]) for step in steps[1:] if not step["gone"]]
    rows = [
        {
            "name": step["name"],
            "rows_in": step["rows_in"],
            "kept": int(step["kept"]),
            "dropped": step["gone"],
            "kept_share": 100 * int(step["kept"]) / most,
            "dropped_share": 100 * max(step["gone"], 0) / most,
            "reasons": reasons(step.get("dropped", {})),
        }
        for i, step in enumerate(steps)
        if i == 0 or step["gone"]
    ]
    note = f"Nothing was dropped by {', '.join(quiet)}." if quiet else ""
    return Markup(environment().get_template("funnel.html.j2").render(rows=rows)), note


def reasons(dropped: Mapping[str, int]) -> list[tuple[str, int]]:
    """Reasons as words with their counts, most first."""
    pairs = sorted(dropped.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(reason.replace("_", " "), count) for reason, count in pairs if count]


BODIES: dict[str, Callable[[Section], tuple[Markup, str]]] = {
    "text": text_body,
    "table": table_body,
    "bars": bars_body,
    "histogram": histogram_body,
    "lines": lines_body,
    "images": images_body,
    "funnel": funnel_body,
}


def render_page(title: str, body: Markup, *, subtitle: str = "") -> str:
    """A whole self-contained HTML page around a body: stylesheet and script inline, nothing from the network."""
    return environment().get_template("page.html.j2").render(title=title, subtitle=subtitle, body=body)


@cache
def environment() -> Environment:
    """The templates of this package, autoescaping on, an undefined name an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("curation.audit"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=number, short_number=short_number, duration=duration, byte_size=byte_size)
    return made
