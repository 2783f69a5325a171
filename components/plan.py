"""What a run would do, known before it starts: every version follows from the recipe and the versions before it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from components.artifacts import Artifact, ArtifactError, Store
from components.choice import probe_of
from components.given_weights import given as named_by
from components.given_weights import named_inputs
from components.removals import refuse_pending
from components.run_step import Identity, identify
from components.settings import Settings
from components.steps import STEPS, Input, Step, load

if TYPE_CHECKING:
    from curation.images.sources import Listing


SAVED = re.compile(r"/step_(\d+)/complete\.json$")
"""Markers of the states that training saves (sapiens2.engine.checkpoint)."""
MEASURED = ".measured"
"""Ends of the parts that an evaluation or a probe keeps (sapiens2.evaluation.remains)."""


@dataclass(frozen=True)
class PlannedStep:
    """A step with the version that it will have; `reused` when that is committed, else `why` it runs.

    `note`: what whoever asked for it should know.
    """

    step: Step
    config: BaseModel
    version: str
    inputs: dict[str, str]
    reused: bool
    why: str
    note: str = ""


def plan(
    steps: tuple[Step, ...],
    settings: Settings,
    store: Store,
    *,
    source: Listing | None = None,
    given: Mapping[str, Artifact] | None = None,
) -> list[PlannedStep]:
    """Plan `steps` in order. `source` lists the pool; `given` are inputs by role from outside the plan.

    Which try of a list of URLs it is, is settled here (components.refetch). Raises ArtifactError when an input is
    neither planned, given nor there as `latest`; SettingsError and FileNotFoundError (weights) before anything runs.
    """
    refuse_pending(store.storage)
    versions: dict[str, str] = {}
    planned: list[PlannedStep] = []
    for step in steps:
        inputs: dict[str, str] = {}
        config, listing, said = settings.config(step), None, ""
        if step.name == "ingest" and source is not None:
            from components.refetch import settle

            config, listing, said = settle(config, source, store)
        for read in step.inputs:
            if not read.needed(config, _made_by(read.chooses, step, inputs, store)):
                continue
            version = versions.get(read.producer) or _outside(read, store, given, steps, inputs)
            if version:
                inputs[read.role] = version
            elif not read.optional:
                raise ArtifactError(
                    f"{step.name} needs {read.role}, and there is none under {store.root}: run `sapiens2 step "
                    f"{read.producer}` first, or the whole pipeline with `sapiens2 run`"
                )
        _refuse_unchosen(step, config, inputs, store)
        found = named_by(step, config, store)
        inputs |= {role: artifact.version for role, artifact in named_inputs(found).items()}
        known = inputs if step.row_wise else _identities(step, inputs, store)
        identity = identify(step, config, known, listing.digest if listing else None, found)
        versions[step.name] = identity.version
        reused = store.committed(step.kind, identity.version)
        if reused:
            store.get(step.kind, identity.version)  # a damaged manifest is said now, not in the middle of the run
        why = "" if reused else reason(step, identity, inputs, store, listing)
        if why and known != inputs:
            gone = [role for role in inputs if known[role] != inputs[role]]
            why = f"pictures were removed from {', '.join(gone)}; {why}"
        planned.append(PlannedStep(step, config, identity.version, inputs, reused, why, said))
    return planned


def _refuse_unchosen(step: Step, config: Any, inputs: Mapping[str, str], store: Store) -> None:
    """Raises ArtifactError, as the step would, for a probe that chose no checkpoint of the run that the step reads."""
    kinds = {read.role: STEPS[read.producer].kind for read in step.inputs}
    for read in step.inputs:
        both = [(kinds[role], inputs[role]) for role in (read.chooses, read.role) if role in inputs]
        if read.chooses and len(both) == 2 and all(store.committed(*each) for each in both):
            run, probe = (store.get(*each) for each in both)
            load("components.training_steps:starting_point")(run, probe, config.checkpoint)


def _made_by(role: str, step: Step, inputs: Mapping[str, str], store: Store) -> dict[str, str]:
    """Which step made the input of that role, by role; nothing of one that is still to be made, or of no role."""
    found = {}
    for read in step.inputs:
        kind, version = STEPS[read.producer].kind, inputs.get(read.role)
        if read.role == role and version and store.committed(kind, version):
            found[role] = store.get(kind, version).manifest.step
    return found


def _identities(step: Step, inputs: Mapping[str, str], store: Store) -> dict[str, str]:
    """What the version depends on, by role (see Artifact.identity)."""
    kinds = {read.role: STEPS[read.producer].kind for read in step.inputs}
    made = {role for role, version in inputs.items() if role in kinds and store.committed(kinds[role], version)}
    return {r: store.get(kinds[r], version).identity if r in made else version for r, version in inputs.items()}


def _outside(
    read: Input,
    store: Store,
    given: Mapping[str, Artifact] | None,
    steps: tuple[Step, ...],
    inputs: Mapping[str, str],
) -> str | None:
    """The version of an input that this plan does not make: the one given, else the latest.

    inputs: those that are settled. A probe is the one that chose among the checkpoints of the run among them.
    """
    role, producer = read.role, read.producer
    if given and role in given:
        return given[role].version
    if any(step.name == "report" for step in steps) and len(steps) > 1 and producer not in [s.name for s in steps]:
        is_report_input = STEPS["report"].inputs
        if any(read.role == role and read.optional for read in is_report_input):
            return None  # a partial pipeline reports on what it made
    run = inputs.get(read.chooses)
    latest = probe_of(store, run) if run else store.latest(STEPS[producer].latest_name)
    return latest.version if latest else None


def reason(
    step: Step, identity: Identity, inputs: Mapping[str, str], store: Store, listing: Listing | None = None
) -> str:
    """Why a step runs: what differs from its latest version, or that there is none. `listing`: ingest's."""
    interrupted = _interrupted(f"{step.kind}/{identity.version}", store)
    latest = store.latest(step.latest_name)
    if latest is None:
        return interrupted or "not run yet"
    manifest, changes = latest.manifest, []
    if manifest.revision != step.revision:
        changes.append(f"step revision {manifest.revision} -> {step.revision}")
    tried = manifest.recipe.get("fetch_epoch", 0)  # another try of a list is not another list
    source = replace(listing, fetch_epoch=tried).digest if listing else identity.source
    if manifest.source != source:
        changes.append("the pool changed" if step.name == "ingest" else "the data that its configuration names changed")
    changes += [f"{key} {old} -> {new}" for key, old, new in diff_values(manifest.recipe, identity.recipe)]
    had = {ref.role: ref.version for ref in manifest.inputs}
    changes += [f"new {role}" for role, version in inputs.items() if had.get(role) != version]
    old_models, new_models = ({m.name: m.sha256 for m in models} for models in (manifest.models, identity.models))
    if old_models != new_models:
        changes.append(f"models {', '.join(sorted(old_models)) or 'none'} -> {', '.join(sorted(new_models)) or 'none'}")
    return "; ".join([interrupted] * bool(interrupted) + changes) or "the latest version is another one"


def _interrupted(folder: str, store: Store) -> str:
    """What an earlier try of a version has left that the next one goes on from."""
    places = [f"{folder}/parts", f"{folder}/staging"]
    done = sum(
        path.endswith(".json") for place in places for path, is_file, _, _ in store.storage.list(place) if is_file
    )
    left = [path for path, *_ in store.storage.list(f"{folder}/work", recursive=True)]
    steps = [int(found[1]) for found in map(SAVED.search, left) if found]
    if steps:
        return f"interrupted: training goes on from step {max(steps)}"
    done = done or sum(path.endswith(MEASURED) for path in left)
    return f"interrupted: {done} parts are done and stay" if done else ""


def diff_values(old: Any, new: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, old, new) wherever two nested configurations differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}):
            found += diff_values(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        return found
    return [] if old == new else [(prefix, old, new)]
