"""`sapiens2 artifacts forget`: pictures removed on request, physically and for good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from components.artifacts import Store
from components.forget import Found, carry_out, find, refuse_running, requested
from components.lineage import descendants
from components.removals import removals
from components.steps import TASKS
from pipelines.cli_options import root_option


@click.command("forget")
@click.option("--ids", "file", type=click.Path(), help="A file of image ids, sha256 or URLs, one a line.")
@click.option("--url", "urls", multiple=True, help="The picture at an address; may be given again.")
@click.option("--hash", "hashes", multiple=True, help="An image id or the sha256 of the bytes; may be given again.")
@click.option("--copies", is_flag=True, help="Also every picture in one duplicate group with them.")
@click.option("--resume", is_flag=True, help="Finish removals that were interrupted.")
@click.option("--yes", is_flag=True, help="Remove; without it what would happen is only shown.")
@root_option
def forget_command(
    file: str | None,
    urls: tuple[str, ...],
    hashes: tuple[str, ...],
    copies: bool,
    resume: bool,
    yes: bool,
    root: str,
) -> None:
    """Remove pictures from every artifact, and refuse them in all later runs.

    Names every artifact and checkpoint that holds or consumed them. With --yes the affected files are rewritten and the
    old ones deleted, and the pictures' hashes and addresses go on the denylist that ingest reads first. The next run
    makes new versions of what followed, in which another copy stands for a duplicate group.
    """
    store = Store(root)
    if resume:
        _resume(store)
        return
    asked = _asked(file, urls, hashes)
    found = find(store, asked, copies=copies)
    for line in told(store, found):
        click.echo(line)
    if not yes:
        click.echo("nothing was changed; add --yes to remove")
        return
    refuse_running(store)
    done = carry_out(store, found)
    click.echo(f"removed, and denied from now on; recorded in {store.storage.full(done.path)}")
    if found.rows:
        click.echo("`sapiens2 run` makes new versions of what followed; the pool itself is not ours to change")


def _resume(store: Store) -> None:
    pending = [removal for removal in removals(store.storage) if removal.state != "done"]
    for removal in pending:
        carry_out(store, find(store, removal.asked, copies=removal.copies))
        click.echo(f"finished the removal {removal.id} of {len(removal.image_ids)} pictures")
    if not pending:
        click.echo("no removal was interrupted")


def _asked(file: str | None, urls: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """What the options name. Raises ValueError for none, and for what is neither id nor URL."""
    asked = requested(_lines(file), file, numbered=True) if file else []
    asked += requested(urls, "--url") if urls else []
    asked += requested(hashes, "--hash") if hashes else []
    if not asked:
        raise ValueError("forget needs to know which pictures: give --ids FILE, --url URL or --hash SHA256")
    return sorted(set(asked))


def _lines(file: str) -> list[str]:
    """Raises ValueError naming a file that cannot be read, and what it should be."""
    try:
        return Path(file).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        known: dict[type[Exception], str] = {
            FileNotFoundError: "there is no such file",
            IsADirectoryError: "that is a folder",
        }
        what = known.get(type(error))
        raise ValueError(
            f"--ids {file}: {what or 'it cannot be read as text'}; it takes a text file of image "
            "ids, sha256 or URLs, one a line. "
            "A single picture is given with --hash or --url"
        ) from error


def told(store: Store, found: Found) -> list[str]:
    """What a removal touches, a line each."""
    removal = found.removal
    lines = [f"removal {removal.id}: {len(removal.image_ids)} pictures, {len(removal.urls)} addresses"]
    for key, count in found.rows.items():
        lines.append(f"  holds      {key}  {count} rows: files rewritten, the old ones deleted, manifest redacted")
    if found.pages:
        lines.append(f"  pages      {', '.join(found.pages)}: those that show pictures of this pool lose them all")
    if found.cached:
        lines.append(f"  remembers  score cache  {sum(found.cached.values())} rows in {len(found.cached)} files")
    if found.attempts:
        lines.append(f"  unfinished attempts  {len(found.attempts)} files deleted")
    for key, ids in removal.consumers.items():
        lines.append(f"  consumed   {key}  {len(ids)} of the pictures: train again from new shards to be rid of them")
        lines += [f"  consumed   {heir}  through {key}" for heir in _heirs(store, key)]
    lines += [f"  unknown    {each}: under no version here; denied from now on" for each in found.unknown]
    return lines


def _heirs(store: Store, key: str) -> list[str]:
    """Models that were made from a backbone."""
    kind, _, version = key.partition("=")
    if not store.committed(kind, version):
        return []
    made = descendants(store, store.get(kind, version)).values()
    return [repr(model) for model in made if model.kind in ("backbone", *TASKS) and repr(model) != key]


COMMANDS = {"forget": forget_command}
