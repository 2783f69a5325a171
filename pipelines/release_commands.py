"""What `sapiens2 release` and `sapiens2 rehydrate` do: a selection without its pictures, and back."""

from __future__ import annotations

from typing import Any

import click

from components.artifacts import Store
from components.rehydrate import read_release, rehydrate
from components.release import release
from components.settings import Settings
from components.steps import STEPS


def run_release(out: str, reference: str, dropped: bool, root: str) -> None:
    """Write the release and say what is in it."""
    store = Store(root)
    record = release(store, store.find(reference), out, dropped=dropped)
    click.echo(f"{record['pictures']} pictures, {record['kept']} of them selected, written to {out}")
    if record["without_url"]:
        click.echo(f"{record['without_url']} came from no address: nobody else can fetch those")
    for licence, count in list(record["licences"].items())[:10]:
        click.echo(f"  {count:>9} of licence {licence}")


def run_rehydrate(place: str, out: str, retry: bool, settings: Settings) -> None:
    """Fetch, and say what came of it. Raises ClickException when not a single picture came, ValueError as rehydrate."""
    config: Any = settings.config(STEPS["ingest"])
    found = rehydrate(read_release(place), out, config.policy(), retry=retry)
    click.echo(f"{found.pictures} pictures fetched and verified")
    for reason, count in found.failures.items():
        click.echo(f"  {count:>9} {reason}")
    out = out.rstrip("/")
    if not found.pictures:
        raise click.ClickException(
            f"no picture could be fetched; {out}/failures has the reason of each. When it is mended, the same command "
            "with --retry asks again"
        )
    if lost := sum(found.failures.values()):
        click.echo(f"{lost} are missing: {out}/failures has the reason of each, --retry asks for them again")
    click.echo(f"a pool for `sapiens2 run --pool {out}/pictures`")
