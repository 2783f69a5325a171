"""`sapiens2 audit`: pictures to label on a page, thresholds from the labels, whom the filter drops."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from pipelines import display
from pipelines.cli_options import root_option

if TYPE_CHECKING:
    from components.audit_verdicts import AttributeVerdict, RuleVerdict

console = display.console()
METHODS = ["wilson", "clopper-pearson"]


@click.command("sample")
@click.option("--rule", help="A rule of filter, by the reason it gives: not_realistic, text_overlay, blurred, ...")
@click.option("--attribute", help="An axis of balance instead: head_pose, extent, ...")
@click.option("--labels", type=click.IntRange(1), default=500, show_default=True, help="Pictures to label.")
@click.option("--bands", type=click.IntRange(1), default=10, show_default=True, help="Bands of the rule's score.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
@click.option("--input", "reference", help="A version other than the latest: filtered=..., selection=...")
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The page to write.")
@root_option
def sample_command(
    rule: str | None,
    attribute: str | None,
    labels: int,
    bands: int,
    seed: int,
    reference: str | None,
    out: str,
    root: str,
) -> None:
    """A page of pictures to label by keyboard: as many from every band of a score, or bin of an attribute."""
    from components.artifacts import Store
    from components.audits import attribute_sample, pool_of, rule_sample

    if bool(rule) == bool(attribute):
        raise ValueError("audit sample needs --rule REASON or --attribute AXIS, one of them")
    store = Store(root)
    if rule:
        pool = pool_of(store, reference or "filtered")
        name, page = rule_sample(store, pool, rule, labels=labels, bands=bands, seed=seed)
    else:
        selection = store.find(reference or "selection")
        name, page = attribute_sample(store, selection, str(attribute), labels=labels, seed=seed)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(page, encoding="utf-8")
    click.echo(f"audit {name}: open {out}, label, save; then `sapiens2 audit calibrate {name}.labels.json`")


@click.command("calibrate")
@click.argument("file", type=click.Path())
@click.option("--precision", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True)
@click.option("--confidence", type=click.FloatRange(0.5, 1, max_open=True), default=0.95, show_default=True)
@click.option("--method", type=click.Choice(METHODS), default="clopper-pearson", show_default=True)
@click.option(
    "--out", type=click.Path(dir_okay=False), help="Write the threshold, or the confusion, as YAML for --config."
)
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON.")
@root_option
def calibrate_command(
    file: str, precision: float, confidence: float, method: str, out: str | None, as_json: bool, root: str
) -> None:
    """From saved labels to a threshold whose precision is at least --precision, or to an attribute's confusion.

    Both are written as settings with their provenance: of filter, or of balance, whose caps then hold for true bins.
    """
    from components.artifacts import Store
    from components.audit_verdicts import calibrate_attribute, calibrate_rule, read_labels

    labels = read_labels(Path(file).read_text("utf-8", errors="replace"), file)
    date = datetime.now(UTC).date().isoformat()
    if labels["kind"] == "attribute":
        verdict = calibrate_attribute(labels, Store(root).find(labels["artifact"]), date=date)
        _show_attribute(labels["axis"], verdict, as_json)
        if out:
            Path(out).write_text(confusion_yaml(labels["axis"], verdict), encoding="utf-8")
            click.echo(f"written to {out}: use it with --config {out}", err=True)
        return
    found = calibrate_rule(labels, precision=precision, confidence=confidence, method=method, date=date)
    _show_rule(found, precision, as_json)
    if found.chosen is None:
        most = max(found.points, key=lambda point: point.bound)
        raise ValueError(
            f"no threshold keeps a precision of {precision} with these labels: the best bound is {most.bound:.3f} at "
            f"{most.threshold:.4g}; label more pictures, or promise less with --precision"
        )
    if out:
        Path(out).write_text(threshold_yaml(found), encoding="utf-8")
        console.print(f"written to {out}: use it with --config {out}", markup=False)


def threshold_yaml(found: RuleVerdict) -> str:
    """The chosen threshold with where it comes from, as --config reads it."""
    import yaml

    from curation.stages.filter import FilterConfig

    assert found.chosen is not None
    value: float = found.chosen.threshold
    if FilterConfig.model_fields[found.field].annotation is int:
        value = math.ceil(value) if found.field.startswith("min") else math.floor(value)
    fields = {found.field: value, "provenance": {found.field: found.provenance}}
    return yaml.safe_dump({"filter": fields}, sort_keys=False, width=1000)


def confusion_yaml(axis: str, found: AttributeVerdict) -> str:
    """The labels of an attribute with where they come from, as --config reads it."""
    import yaml

    fields = {
        "confusion": {axis: {"bins": found.bins, "counts": found.counts}},
        "provenance": {axis: found.provenance},
    }
    return yaml.safe_dump({"balance": fields}, sort_keys=False, width=1000)


def _show_rule(found: RuleVerdict, precision: float, as_json: bool) -> None:
    if as_json:
        chosen = None if found.chosen is None else found.chosen.__dict__
        points = [point.__dict__ for point in found.points]
        click.echo(json.dumps({"field": found.field, "before": found.before, "chosen": chosen, "points": points}))
        return
    table = _table(found.field, "precision", "at least", "recall", "kept", "labels", "")
    for p in found.points:
        mark = "chosen" if p is found.chosen else "" if p.bound >= precision else "not proven"
        numbers = (f"{p.threshold:.4g}", f"{p.precision:.3f}", f"{p.bound:.3f}", f"{p.recall:.3f}", f"{p.kept:.3f}")
        table.add_row(*numbers, str(p.labels), mark)
    console.print(table)
    console.print(f"set to {found.before:.4g} before; the bounds hold for all thresholds at once")


def _show_attribute(axis: str, verdict: AttributeVerdict, as_json: bool) -> None:
    if as_json:
        shares: dict[str, Any] = {"before": [s.__dict__ for s in verdict.before]}
        shares["after"] = None if verdict.after is None else [s.__dict__ for s in verdict.after]
        click.echo(json.dumps({"axis": axis, "bins": verdict.bins, "confusion": verdict.counts, **shares}))
        return
    table = _table(f"measured {axis}", *(f"is {name}" for name in verdict.bins), "right", "95 %")
    for name, row in zip(verdict.bins, verdict.counts, strict=True):
        _, share, low, high = verdict.precision[name]
        right = "" if share is None else f"{share:.2f}"
        table.add_row(name, *map(str, row), right, f"{low:.2f} .. {high:.2f}")
    console.print(table)
    for title, shares_ in (("before balancing", verdict.before), ("after", verdict.after)):
        table = _table(title, "measured", "true share", "95 %")
        for s in shares_ or []:
            table.add_row(s.bin, f"{s.measured:.3f}", f"{s.corrected:.3f}", f"{s.low:.3f} .. {s.high:.3f}")
        console.print(table)


@click.command("rates")
@click.option("--input", "reference", default="filtered", help="A version other than the latest: filtered=...")
@click.option("--json", "as_json", is_flag=True, help="The numbers as JSON.")
@root_option
def rates_command(reference: str, as_json: bool, root: str) -> None:
    """Drop rates of filter by source and by group; flagged where a group loses far more than the others."""
    from components.artifacts import Store
    from components.audit_verdicts import rates
    from components.audits import pool_of

    found = rates(pool_of(Store(root), reference))
    if as_json:
        click.echo(json.dumps([each.__dict__ for each in found]))
        return
    table = _table("axis", "group", "pictures", "passed", "drop rate", "95 %", "exclusion ratio", "")
    for e in found:
        ratio = "" if e.ratio is None else f"{e.ratio:.2f}"
        passed, interval = f"{1 - e.rate:.3f}", f"{e.low:.3f} .. {e.high:.3f}"
        mark = "[red]flagged[/]" if e.flagged else ""
        table.add_row(e.axis, e.group, str(e.pictures), passed, f"{e.rate:.3f}", interval, ratio, mark)
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


COMMANDS = {"sample": sample_command, "calibrate": calibrate_command, "rates": rates_command}
