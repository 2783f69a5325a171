"""The one body of every step: resolve, reuse or attempt, work, publish, tell.

The command line, the KFP components and the Ray job entry point all come through `run_step`.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from components import listing
from components.artifacts import Artifact, ArtifactError, Store
from components.attempt import Attempt, Conflict, Lease, PartitionRecord
from components.digest import version_of
from components.events import emit
from components.failure import note, notes, rerun_note, told
from components.given_weights import Given, GivenWeights, named_inputs
from components.given_weights import given as named_by
from components.manifest import CodeRef, FileEntry, InputRef, Manifest, ModelRef
from components.progress import Progress
from components.removals import refuse_pending
from components.settings import recipe_fields
from components.steps import Step, load
from components.storage import StorageError, existing, of_full_disk, out_of_reach

PACKAGES = ("curation", "sapiens2", "components", "pipelines")
MIN_FREE_BYTES = 500_000_000


@dataclass
class StepContext:
    """What the body of a step works with."""

    step: Step
    config: Any
    inputs: dict[str, Artifact]
    store: Store
    attempt: Attempt
    progress: Progress
    weights: dict[str, str] = field(default_factory=dict)
    source: Any = None


@dataclass
class Publication:
    """What the body of a step has to publish: partitions it wrote, loose files, numbers, something to show."""

    records: dict[str, PartitionRecord] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    existing: list[FileEntry] = field(default_factory=list)
    fragment: dict[str, Any] | None = None
    digest: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Outcome:
    """A step's artifact, and whether it was there already."""

    step: Step
    artifact: Artifact
    reused: bool
    seconds: float


@dataclass(frozen=True)
class Identity:
    """All that determines a version."""

    version: str
    recipe: dict[str, Any]
    models: list[ModelRef]
    weights: dict[str, str]
    source: str | None


def identify(
    step: Step,
    config: BaseModel,
    inputs: Mapping[str, str],
    source: str | None = None,
    given: Sequence[Given] = (),
) -> Identity:
    """The version that a step will have, from its inputs' versions by role: known before anything runs.

    `given` is what the configuration names itself; those that are artifacts join the inputs. Raises
    FileNotFoundError naming a weight file that is missing and where to put it, ValueError for labelled data that cannot
    be read.
    """
    models, paths = [], {}
    if step.weights:
        from curation.models.weights import file_sha256, find

        for spec in load(step.weights)(config):
            found = find(spec)
            paths[spec.name] = str(found)
            sha256 = spec.sha256 or file_sha256(found)
            models.append(ModelRef(name=spec.name, revision=spec.revision, sha256=sha256, licence=spec.licence))
    if step.data and source is None:
        source = load(step.data)(config)
    for weights in given:
        if isinstance(weights, GivenWeights):
            models.append(weights.model)
            paths[weights.model.name] = weights.uri
    joined = {role: artifact.version for role, artifact in named_inputs(given).items()}
    recipe = recipe_fields(config)
    assert recipe.get("fetch_epoch", 0) is not None, "which try of a list it is must be settled (components.refetch)"
    hashes = {model.name: model.sha256 for model in models}
    version = version_of(step.family, step.revision, recipe, {**inputs, **joined}.items(), hashes, source)
    return Identity(version, recipe, models, paths, source)


def run_step(
    step: Step,
    config: BaseModel,
    inputs: Mapping[str, Artifact],
    root: str,
    *,
    source: Any = None,
    pool: str | None = None,
) -> Outcome:
    """Make the artifact of a step, or return it when it is there. `source` is ingest's listing (it has a `digest`).

    Which try of a list of URLs it is, is settled here unless the configuration says (components.refetch). Raises
    ArtifactError for a missing input, Conflict when two writers disagree, and whatever the stage raises, with
    the command that runs the step again as a note; `pool` is what that command names.
    """
    began, progress = time.monotonic(), Progress(step.name)
    reads = step.reads(config, {role: artifact.manifest.step for role, artifact in inputs.items()})
    inputs = {read.role: inputs[read.role] for read in reads if read.role in inputs}
    missing = [read.role for read in reads if not read.optional and read.role not in inputs]
    if missing:
        raise ArtifactError(
            f"{step.name} needs {', '.join(missing)}: run the steps before it, or name one with --input"
        )
    store = Store(root)
    refuse_pending(store.storage)
    config, source, again = _settled(step, config, source, store)
    given = named_by(step, config, store)
    inputs = {**inputs, **named_inputs(given)}
    versions = {role: artifact.version if step.row_wise else artifact.identity for role, artifact in inputs.items()}
    identity = identify(step, config, versions, source.digest if source is not None else None, given)
    if store.committed(step.kind, identity.version):
        artifact = store.get(step.kind, identity.version)
        tag_outcome(store, step, artifact)
        progress.say("reused", version=identity.version, **_counts(artifact.manifest.metrics))
        return Outcome(step, artifact, True, time.monotonic() - began)
    check_disk(store)
    attempt = Attempt(store.root, step.kind, identity.version)
    context = StepContext(step, config, dict(inputs), store, attempt, progress, identity.weights, source)
    progress.say("running", version=identity.version)
    emit("START", context, None)
    try:
        artifact = _attempt(context, identity)
    except BaseException as raised:
        if not _overtaken(raised, store, step, identity):
            error = _full_disk(raised, store) or raised
            note(error, *notes(raised), rerun_note(step, again, inputs, store.root, pool))
            with suppress(OSError):  # what the step died of is what counts
                progress.say("failed", error=told(error), user=is_user_error(error))
                if not out_of_reach(error):
                    emit("FAIL", context, None, error=error)
            if error is raised:
                raise
            raise error from raised
        artifact = store.get(step.kind, identity.version)
    emit("COMPLETE", context, artifact)
    tag_outcome(store, step, artifact)
    listing.keep_up(store.storage, step.kind)
    progress.say("done", version=identity.version, **_counts(artifact.manifest.metrics))
    return Outcome(step, artifact, False, time.monotonic() - began)


def _settled(step: Step, config: Any, source: Any, store: Store) -> tuple[Any, Any, Any]:
    """Configuration and listing with the try of a list of URLs settled, and the configuration that names it again."""
    if source is None:
        return config, source, config
    from components.refetch import same_try, settle

    config, source, said = settle(config, source, store)
    if said:
        print(f"[{step.name}] {said}", flush=True)
    return config, source, same_try(config, source)


def _overtaken(error: BaseException, store: Store, step: Step, identity: Identity) -> bool:
    """Whether another run has committed the version meanwhile, which swept away what this one was working with.

    A Conflict stays one: it says that the two do not agree.
    """
    if not isinstance(error, Exception) or isinstance(error, Conflict) or out_of_reach(error):
        return False
    with suppress(OSError):
        return store.committed(step.kind, identity.version)
    return False


def tag_outcome(store: Store, step: Step, artifact: Artifact) -> None:
    """What a run made or reused is the latest of its name; the tags that its manifest asks for follow it."""
    store.tag(f"latest/{step.latest_name}", artifact)
    for wanted in artifact.manifest.metrics.get("tags", []):
        if store.committed(wanted["kind"], wanted["version"]):
            store.tag(wanted["name"], store.get(wanted["kind"], wanted["version"]), wanted["file"])


def _attempt(context: StepContext, identity: Identity) -> Artifact:
    start, began = _now(), time.monotonic()
    with Lease(context.attempt, exclusive=not context.step.deterministic):
        publication: Publication = load(context.step.body)(context)
        loose = list(publication.existing)
        if publication.fragment is not None:
            publication.files["fragment.json"] = json.dumps(publication.fragment).encode()
        loose += [context.attempt.write_file(name, data) for name, data in publication.files.items()]
        manifest = Manifest(
            kind=context.step.kind,
            version=identity.version,
            digest=publication.digest,
            step=context.step.name,
            revision=context.step.revision,
            config=context.config.model_dump(mode="json"),
            recipe=identity.recipe,
            inputs=[InputRef(role=r, kind=a.kind, version=a.version) for r, a in sorted(context.inputs.items())],
            source=identity.source,
            metrics={**publication.metrics, "seconds": round(time.monotonic() - began, 3)},
            models=identity.models,
            code=code_ref(),
            environment=environment(),
            seed=publication.seed,
            start=start,
            end=_now(),
        )
        artifact = context.attempt.publish(manifest, publication.records, publication.digest, loose)
        context.attempt.sweep()
    return artifact


def is_user_error(error: BaseException) -> bool:
    """Whether the message is meant for the user: something given was wrong, and the text says what and the mend.

    Those are ValueErrors that the project raises; libraries raise subclasses of their own (ArrowInvalid, JSON).
    """
    ours = type(error).__module__.partition(".")[0] in PACKAGES
    of_values = type(error) is ValueError or (ours and isinstance(error, ValueError))
    return of_values or isinstance(error, (FileNotFoundError, PermissionError))


def check_disk(store: Store, needed_bytes: int = MIN_FREE_BYTES) -> None:
    """Raises ValueError when the local root has too little space left, before any work."""
    if not store.storage.local:
        return
    free = shutil.disk_usage(existing(store.root)).free
    if free < needed_bytes:
        raise ValueError(
            f"too little disk under {store.root}: {free / 1e9:.2f} GB free, at least {needed_bytes / 1e9:.2f} GB "
            "needed; free some space, or choose another root with --root"
        )


def _full_disk(error: BaseException, store: Store) -> StorageError | None:
    """What a full disk is told as, or None when that is not what the step died of."""
    if not of_full_disk(error):
        return None
    free = f", {shutil.disk_usage(existing(store.root)).free / 1e9:.2f} GB free there" if store.storage.local else ""
    return StorageError(
        f"a disk is full: the root is {store.root}{free}, temporary files go to {tempfile.gettempdir()}; free some "
        "space (TMPDIR moves the temporary files), then the same command goes on where it was"
    )


def _counts(metrics: Mapping[str, Any]) -> dict[str, Any]:
    dropped = metrics.get("dropped") or {}
    return {
        "rows_in": metrics.get("rows_in"),
        "kept": metrics.get("kept"),
        "dropped": sum(dropped.values()) if dropped else 0,
        "headline": metrics.get("headline"),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@cache
def code_ref() -> CodeRef:
    """The code that runs. The commit is that of the checkout the package lies in, if it is one."""
    here = Path(__file__).resolve().parent.parent
    commit, dirty = None, None
    if (here / ".git").exists() and shutil.which("git"):
        head = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True)
        if head.returncode == 0:
            commit = head.stdout.strip()
            state = subprocess.run(["git", "-C", str(here), "status", "--porcelain"], capture_output=True, text=True)
            dirty = bool(state.stdout.strip())
    return CodeRef(package_version=package_version("sapiens2"), git_commit=commit, dirty=dirty)


@cache
def environment() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("torch", "ray", "kfp", "pyarrow", "numpy", "opencv-python-headless", "faiss-gpu", "onnxruntime"):
        try:
            found[name] = package_version(name)
        except ModuleNotFoundError:
            continue
    return found
