"""Where a KFP component enters: manifests in, one step, its manifest out."""

from __future__ import annotations

import gc
import json
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.artifacts import Artifact, Store
from components.failure import told
from components.job import job_for
from components.manifest import Manifest
from components.placement import Placement
from components.progress import Progress
from components.ray_jobs import Cancelled
from components.remote import perform
from components.run_step import is_user_error
from components.steps import STEPS

RARELY = 200_000  # allocations between two collections
CANCELLED = 143  # as the shell says of a process that SIGTERM ended


def run(
    name: str,
    inputs: Mapping[str, Any],
    out: Any,
    facts: Any,
    root: str,
    settings: Mapping[str, Any],
    *,
    pool: str | None = None,
    page: Any = None,
) -> None:
    """Run a step; write its manifest to `out.path`, its counts to `facts` and its page, if any, to `page.path`.

    `inputs` are KFP artifacts by role; one that was not given is None. The work is done where the placement of the task
    says (components.placement). What the user can mend ends the process with exit code 2 and one line, a request to end
    with 143, everything else with a traceback.
    """
    gc.set_threshold(RARELY)  # most objects are modules, which live as long as the process
    progress = Progress(name)
    try:
        store = Store(root)
        found = {role: _resolve(store, artifact) for role, artifact in inputs.items() if artifact is not None}
        artifact = perform(job_for(STEPS[name], store.root, settings, found, pool), Placement.from_environment())
    except Cancelled:
        progress.say("failed", error="cancelled", user=True)
        sys.exit(CANCELLED)
    except Exception as error:
        user = is_user_error(error) or bool(getattr(error, "user", False))
        progress.say("failed", error=told(error), user=user)
        if user:
            traceback.print_exc(file=sys.stdout)  # for the log; whoever watches shows the message
            print(f"error: {name}: {told(error)}", flush=True)
            sys.exit(2)
        raise
    _tell(artifact, out, facts, page)
    gc.freeze()  # so that the interpreter does not walk all of torch on its way out


def _resolve(store: Store, artifact: Any) -> Artifact:
    """The artifact of the store that a KFP artifact stands for: by its manifest file, or where an importer saw it."""
    path = Path(artifact.path)
    if path.is_file():
        manifest = Manifest.parse(path.read_bytes(), str(path))
        return store.get(manifest.kind, manifest.version)
    kind, version, _ = artifact.uri.rsplit("/", 2)[-3:]  # <root>/<kind>/<version>/manifest.json on S3
    return store.get(kind.rsplit("/", 1)[-1], version)


def _tell(artifact: Artifact, out: Any, facts: Any, page: Any) -> None:
    manifest = artifact.manifest
    _write(out.path, manifest.dump())
    rows = {table: artifact.rows(table) for table in manifest.tables}
    out.metadata.update(kind=artifact.kind, version=artifact.version, digest=manifest.digest or "", rows=rows)
    numbers = {k: v for k, v in manifest.metrics.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    for key, value in numbers.items():
        facts.log_metric(key, value)
    _write(facts.path, json.dumps(numbers).encode())
    if page is not None:
        (html,) = [entry.path for entry in manifest.files if entry.path.endswith(".html")]
        _write(page.path, artifact.storage.read(html))


def _write(path: str, data: bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)
