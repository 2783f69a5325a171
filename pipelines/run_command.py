"""What `sapiens2 run` and `sapiens2 step` do: check, plan, run, sum up."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.artifacts import Artifact, Store
from components.given_weights import given, named_inputs
from components.plan import PlannedStep, plan
from components.run_step import check_disk, run_step
from components.settings import Settings
from components.steps import STEPS, TASKS, find_steps, pipeline_steps
from pipelines import display
from pipelines.display import LiveTable, plan_table, summary_table

console = display.console()


def run_pipeline(pool: str | None, root: str, settings: Settings, *, only: str | None, dry_run: bool) -> None:
    """Run a pipeline here and print where the report is. Raises ValueError for what the user can mend."""
    store = _checked_store(root)
    settings.check(pipeline_steps(only))
    listing = None if only == "training" else _listing(pool or _sample_pool(settings.preset), settings)
    planned = plan(pipeline_steps(only), settings, store, source=listing)
    _say_planned(planned)
    if dry_run:
        console.print(plan_table(planned))
        return
    waiting = [each for each in planned if not each.reused]
    began, records = time.monotonic(), {}
    if waiting:
        records = _execute(pool or _sample_pool(settings.preset), store, _settled(settings, planned), only, planned)
    from pipelines.local_run import tag_run

    made = tag_run(store, planned)
    _close(planned, made, records, store, time.monotonic() - began)


def run_one(
    name: str, pool: str | None, given: Sequence[str], root: str, settings: Settings, *, dry_run: bool
) -> list[Artifact]:
    """Run one step (or every task of a family), in this process, on the latest inputs or those given."""
    store, steps = _checked_store(root), find_steps(name)
    settings.check(steps)
    inputs = given_inputs(store, given)
    listing = None
    if steps[0].name == "ingest":
        if not pool:
            raise ValueError("ingest needs --pool: a folder, a URL list, a .tar or .parquet")
        listing = _listing(pool, settings)
    planned = plan(steps, settings, store, source=listing, given=inputs)
    _say_planned(planned)
    if dry_run:
        console.print(plan_table(planned))
        return []
    made, here = [], Path.cwd()
    with tempfile.TemporaryDirectory(prefix="sapiens2-") as neutral:
        os.chdir(neutral)
        try:
            made = [_run_one(each, store, listing, pool_path(pool) if pool else None) for each in planned]
        finally:
            os.chdir(here)
    return made


def _run_one(each: PlannedStep, store: Store, listing: Any, pool: str | None) -> Artifact:
    kinds = {read.role: STEPS[read.producer].kind for read in each.step.inputs}
    artifacts = {role: store.get(kinds[role], version) for role, version in each.inputs.items() if role in kinds}
    for role, artifact in {**artifacts, **named_inputs(given(each.step, each.config, store))}.items():
        console.print(f"  {role}: {artifact}")
    outcome = run_step(each.step, each.config, artifacts, store.root, source=listing, pool=pool)
    records = {each.step.name: {"state": "reused" if outcome.reused else "done", "seconds": outcome.seconds}}
    console.print(summary_table([each], {each.step.name: outcome.artifact}, records))
    _print_notes({each.step.name: outcome.artifact})
    return outcome.artifact


def _say_planned(planned: Sequence[PlannedStep]) -> None:
    for each in planned:
        if each.note:
            console.print(f"[yellow]note:[/] {each.step.name}: {each.note}", soft_wrap=True)


def _settled(settings: Settings, planned: Sequence[PlannedStep]) -> Settings:
    """The settings with the try of a list of URLs that was planned, so that the step makes no other."""
    settled: dict[str, Any] = {}
    for each in planned:
        if each.step.name == "ingest":
            config: Any = each.config
            settled = {"ingest.fetch_epoch": config.fetch_epoch, "ingest.retry_failed": False}
    return replace(settings, overrides={**settings.overrides, **settled})


def _execute(
    pool: str, store: Store, settings: Settings, only: str | None, planned: Sequence[PlannedStep]
) -> dict[str, dict[str, Any]]:
    from pipelines.local_run import execute

    check_disk(store)
    arguments = {"root": store.root, "settings": settings.as_dict(), "code_version": code_version()}
    if only == "training":
        shards = store.latest("shards")
        assert shards is not None  # the plan has found them
        arguments["shards_manifest"] = store.storage.full(f"{shards.folder}/manifest.json")
    else:
        arguments["pool"] = pool_path(pool)
    needs_ray = any(getattr(each.config, "workers", 0) for each in planned if not each.reused)
    spec = {"pipeline": only or "full", "arguments": arguments, "ray": needs_ray}
    with LiveTable(console, planned) as live:
        return execute(spec, planned, store, live.show).records


def _close(
    planned: Sequence[PlannedStep],
    made: Mapping[str, Artifact],
    records: Mapping[str, dict[str, Any]],
    store: Store,
    seconds: float,
) -> None:
    console.print(summary_table(planned, made, records))
    reused = sum(records.get(each.step.name, {}).get("state", "reused") == "reused" for each in planned)
    console.print(f"{len(planned)} steps in {seconds:.1f} s, {reused} reused; root {store.root}")
    _print_notes(made)
    page = made["report"].file_path("report.html")
    console.print(f"report: {store.storage.full(page)}", soft_wrap=True)


def _print_notes(made: Mapping[str, Artifact]) -> None:
    """What the steps want a person to know: a target beyond the supply, a cap that binds, nothing kept."""
    for name, artifact in made.items():
        for text in artifact.manifest.metrics.get("notes", []):
            console.print(f"[yellow]note:[/] {name}: {text}")


def _checked_store(root: str) -> Store:
    store = Store(root)
    store.storage.ensure_writable()
    check_disk(store)
    return store


def _listing(pool: str, settings: Settings) -> Any:
    from curation.stages.ingest import list_sources

    config: Any = settings.config(STEPS["ingest"])
    return list_sources(pool_path(pool), config)


def pool_path(pool: str) -> str:
    """A pool as it is valid in another working directory; URIs as they are."""
    return pool if "://" in pool else str(Path(pool).expanduser().absolute())


def _sample_pool(preset: str) -> str:
    from pipelines.sample_pool import build_sample_pool

    base = Path(os.environ.get("SAPIENS2_CACHE") or Path.home() / ".cache" / "sapiens2")
    return str(build_sample_pool(base / "sample-pool" / preset, size=preset))


def given_inputs(store: Store, references: Sequence[str]) -> dict[str, Artifact]:
    """Inputs that the user names, by role: a kind is its own role but for task checkpoints and probes."""
    found = {}
    for reference in references:
        artifact = store.find(reference)
        step = artifact.manifest.step
        role = "checkpoint" if artifact.kind in TASKS else "probe" if step == "probe" else artifact.kind
        found[role] = artifact
    return found


def code_version() -> str:
    """Package version and commit of the code that runs, `.dirty` when it was changed since."""
    from components.run_step import code_ref

    code = code_ref()
    return f"{code.package_version}+{(code.git_commit or 'unknown')[:12]}{'.dirty' if code.dirty else ''}"
