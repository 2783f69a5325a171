"""`sapiens2 artifacts ...`: list, show, lineage, why, trained-on, diff, verify, tag, gc."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from components.artifacts import Artifact, Store
from pipelines.cli_options import root_option

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from components.lineage import FunnelRow

gc.set_threshold(100_000)  # short questions make many small things and hardly any cycles; a tenth of their time

COLOURS = {"kept": "green", "dropped": "red", "rejected": "red", "measured": "cyan"}


def _console() -> Console:
    """For what needs a table; the other questions are answered before rich is loaded."""
    from pipelines import display

    return display.console()


@click.command("list")
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@root_option
def list_command(kind: str | None, as_json: bool, root: str) -> None:
    """Every committed version, oldest first within a kind."""
    store = Store(root)
    names: dict[str, list[str]] = {}
    for tag, record in store.tag_records().items():
        file = record.get("file")
        shown = "latest" if tag.startswith("latest/") else f"{tag} ({file})" if file else tag
        names.setdefault(f"{record['kind']}={record['version']}", []).append(shown)
    rows = [(each, names.get(f"{each.kind}={each.version}", [])) for each in store.summaries(kind)]
    if as_json:
        fields = ("kind", "version", "step", "digest", "end", "bytes")
        lines = ({name: getattr(each, name) for name in fields} | {"tags": tags} for each, tags in rows)
        click.echo("".join(f"{json.dumps(line)}\n" for line in lines), nl=False)
        return
    if not rows:
        what = f"no artifact of kind {kind!r}" if kind and names else "nothing"
        click.echo(f"{what} under {store.root} yet: `sapiens2 run` makes something")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("kind", "version", "step", "rows", "MB", "made", "tags"):
        table.add_column(name, justify="right" if name in ("rows", "MB") else "left")
    for each, tags in rows:
        cells = (each.kind, each.version, each.step, "+".join(map(str, each.rows.values())))
        table.add_row(*cells, f"{each.bytes / 1e6:.2f}", each.end[:19], ", ".join(sorted(tags)))
    _console().print(table)


@click.command("show")
@click.argument("reference")
@root_option
def show_command(reference: str, root: str) -> None:
    """The manifest of a version: KIND=VERSION, KIND (latest), a tag, or the start of a version."""
    click.echo(Store(root).find(reference).manifest.dump().decode(), nl=False)


@click.command("lineage")
@click.argument("reference", required=False)
@click.option("--html", type=click.Path(), help="Write the graph as one self-contained page.")
@root_option
def lineage_command(reference: str | None, html: str | None, root: str) -> None:
    """What an artifact came from, as a tree; with --html the graph of it and what came from it."""
    from components.lineage import ancestors, descendants
    from components.lineage_page import lineage_tree, render_lineage

    store = Store(root)
    focus = store.find(reference) if reference else None
    made = (
        ancestors(store, descendants(store, focus).values())  # with what else its descendants were made from
        if focus
        else {(a.kind, a.version): a for a in store.all()}
    )
    if not made:
        raise ValueError(f"nothing under {store.root} yet: `sapiens2 run` makes something")
    manifests = [artifact.manifest.model_dump(mode="json") for artifact in made.values()]
    if html:
        Path(html).write_text(render_lineage(manifests, focus=focus.version if focus else None))
        click.echo(html)
        return
    shown = [focus] if focus else _ends(list(made.values()))
    for artifact in shown:
        _console().print(lineage_tree(manifests, artifact.version))


def _ends(artifacts: list[Artifact]) -> list[Artifact]:
    """Artifacts that nothing else was made from."""
    read = {(ref.kind, ref.version) for artifact in artifacts for ref in artifact.manifest.inputs}
    return [artifact for artifact in artifacts if (artifact.kind, artifact.version) not in read]


@click.command("why")
@click.argument("image")
@click.option("--json", "as_json_", is_flag=True, help="A JSON array.")
@root_option
def why_command(image: str, as_json_: bool, root: str) -> None:
    """One image (PATH, URL or the start of its id) through every version of every stage."""
    from components.explain import as_json, why

    lines = list(why(Store(root), image))
    if as_json_:
        click.echo(as_json(lines))
        return
    verdicts = {verdict: click.style(f"{verdict:<9}", colour) for verdict, colour in COLOURS.items()}
    told = []
    for line in lines:
        version = f"{line.artifact.version}{'*' if line.latest else ' '}"
        told.append(f"{line.artifact.kind:<11} {version} {verdicts[line.verdict]}{line.text}")
    click.echo("\n".join([*told, click.style("* the latest version of its kind", dim=True)]))


@click.command("trained-on")
@click.argument("image")
@root_option
def trained_on_command(image: str, root: str) -> None:
    """Every checkpoint that consumed an image (PATH, URL or the start of its id)."""
    from components.explain import trained_on

    found = trained_on(Store(root), image)
    for each in found:
        click.echo(f"{each.artifact.kind}={each.artifact.version}  through {each.through}")
    if not found:
        click.echo("no checkpoint under this root was trained on it")


@click.command("diff")
@click.argument("old")
@click.argument("new")
@root_option
def diff_command(old: str, new: str, root: str) -> None:
    """What differs between two versions, decisions included, and the funnels that led to both side by side."""
    from components.lineage import changed_decisions, diff, funnels

    store = Store(root)
    first, second = store.find(old), store.find(new)
    if first.kind != second.kind:
        raise ValueError(f"{first} and {second} are of different kinds and cannot be compared")
    console = _console()
    console.print(f"{first} -> {second.version}")
    changes = diff(first, second)
    for topic, items in changes.items():
        for key, was, now in items:
            console.print(f"  {topic:<8} {key}: {was} -> {now}", markup=False, soft_wrap=True)
    for change, ids in changed_decisions(first, second).items():
        console.print(f"  {len(ids):>5} rows {change}: {', '.join(i[:12] for i in ids[:4])}", markup=False)
    if not changes:
        console.print("  no difference")
    if rows := funnels(store, first, second):
        console.print(_funnel_table(rows, first.version[:8], second.version[:8]))


def _funnel_table(rows: list[FunnelRow], old: str, new: str) -> Table:
    """Two funnels side by side; what differs is marked."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", title="funnels", title_justify="left")
    for name in ("step", "", old, new, ""):
        table.add_column(name, justify="right" if name in (old, new) else "left")
    for row in rows:
        step = row.step if row.what == "in" else ""
        what = row.what if row.what in ("in", "kept") else f"- {row.what}"
        change = f"{row.new - row.old:+d}" if row.old is not None and row.new is not None and row.old != row.new else ""
        table.add_row(step, what, *("" if n is None else str(n) for n in (row.old, row.new)), change)
    return table


@click.command("verify")
@click.argument("reference", required=False)
@root_option
def verify_command(reference: str | None, root: str) -> None:
    """Read every file again and hold it against its manifest; exit code 1 when something is wrong."""
    from components.removals import removals
    from components.upkeep import verify

    store = Store(root)
    one = store.find(reference) if reference else None
    wrong = 0
    for kind, version, found in [(one.kind, one.version, one)] if one else store.look():
        problems = [str(found)] if isinstance(found, ValueError) else verify(store, found)
        wrong += bool(problems)
        gone = 0 if isinstance(found, ValueError) else len(found.manifest.redacted)
        text = "; ".join(problems) or (f"ok, redacted: {gone} pictures were removed on request" if gone else "ok")
        click.echo(f"{kind}={version}  {text}")
    for removal in () if one else removals(store.storage):
        if removal.state != "done":
            wrong += 1
            click.echo(f"removal {removal.id}  interrupted: run `sapiens2 artifacts forget --resume`")
    if wrong:
        sys.exit(1)


@click.command("tag")
@click.argument("reference")
@click.argument("name")
@root_option
def tag_command(reference: str, name: str, root: str) -> None:
    """Give a version a name."""
    store = Store(root)
    artifact = store.find(reference)
    store.tag(name, artifact)
    click.echo(f"{name} -> {artifact}")


@click.command("gc")
@click.option("--older-than", default=24.0, show_default=True, help="Hours since the last write to a version.")
@click.option("--yes", is_flag=True, help="Delete; without it the list is only shown.")
@root_option
def gc_command(older_than: float, yes: bool, root: str) -> None:
    """Versions that no tag leads to, and attempts that were never committed."""
    from components.upkeep import collect, garbage

    store = Store(root)
    items = list(garbage(store, older_than * 3600))
    for item in items:
        if yes:
            collect(store, item)
        verb = "deleted" if yes else "would delete"
        click.echo(f"{verb} {item.kind}={item.version}  {item.bytes / 1e6:.2f} MB  {item.why}")
    total = sum(item.bytes for item in items)
    click.echo(f"{len(items)} versions, {total / 1e6:.2f} MB" + ("" if yes or not items else "; add --yes to delete"))


COMMANDS = {
    command.name or "": command
    for command in (
        list_command,
        show_command,
        lineage_command,
        why_command,
        trained_on_command,
        diff_command,
        verify_command,
        tag_command,
        gc_command,
    )
}
