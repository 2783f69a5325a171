"""One step as a piece of work that another process can do: its order, and what came of it.

Both lie under the root, `<root>/jobs/<name>/`, so that what travels to a job is a name. Run by
`python -m components.job ROOT NAME`, on whatever machine Ray starts it.
"""

from __future__ import annotations

import hashlib
import json
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.artifacts import Artifact, Store
from components.failure import told
from components.run_step import Outcome, is_user_error, run_step
from components.settings import Settings
from components.steps import STEPS, Step

ENTRY = "python -m components.job"


class JobFailed(RuntimeError):
    """A step failed elsewhere. `user` when the message is for the user to mend."""

    def __init__(self, message: str, *, user: bool = False) -> None:
        super().__init__(message)
        self.user = user


@dataclass(frozen=True)
class Job:
    """A step, its inputs by role as `kind=version`, its settings, and for ingest the pool."""

    step: str
    root: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    pool: str | None = None

    @property
    def name(self) -> str:
        """The same for the same order, so that who comes again finds the job at work. A valid Kubernetes name."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"sapiens2-{self.step}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def entrypoint(self) -> str:
        """The shell command that does it."""
        from shlex import quote

        return f"{ENTRY} {quote(self.root)} {self.name}"

    def perform(self) -> Outcome:
        """Do it in this process."""
        step, store = STEPS[self.step], Store(self.root)
        found = {role: store.get(*reference.split("=", 1)) for role, reference in self.inputs.items()}
        config = Settings.from_dict(self.settings).config(step)
        listing = _listing(self.pool, config)
        return run_step(step, config, found, store.root, source=listing, pool=self.pool)

    def hand_over(self) -> None:
        """Write the order where the job will read it, and forget what came of an earlier one."""
        storage = Store(self.root).storage
        storage.write(f"jobs/{self.name}/order.json", json.dumps(asdict(self)).encode())
        storage.delete_folder(f"jobs/{self.name}/outcome")

    def outcome(self) -> Artifact | None:
        """What the job made; None when it ended without a word. Raises JobFailed with the step's own message."""
        store = Store(self.root)
        path = f"jobs/{self.name}/outcome/outcome.json"
        if not store.storage.exists(path):
            return None
        word = json.loads(store.storage.read(path))
        if word.get("error"):
            raise JobFailed(word["error"], user=word["user"])
        return store.get(word["kind"], word["version"])

    def clear(self) -> None:
        """Remove order and outcome, once the artifact is in hand."""
        Store(self.root).storage.delete_folder(f"jobs/{self.name}")


def job_for(
    step: Step, root: str, settings: Mapping[str, Any], inputs: Mapping[str, Artifact], pool: str | None
) -> Job:
    """The order for a step with these inputs."""
    return Job(step.name, root, dict(settings), {role: repr(found) for role, found in inputs.items()}, pool)


def _listing(pool: str | None, config: Any) -> Any:
    if pool is None:
        return None
    from curation.stages.ingest import list_sources

    return list_sources(pool, config)


def main(root: str, name: str) -> int:
    """Do the order of that name under the root, and leave word of how it ended; the exit code."""
    storage = Store(root).storage
    job = Job(**json.loads(storage.read(f"jobs/{name}/order.json")))
    code, word = 0, {}
    try:
        outcome = job.perform()
        word = {"kind": outcome.artifact.kind, "version": outcome.artifact.version, "reused": outcome.reused}
        print(f"{job.step}: {'reused' if outcome.reused else 'made'} {outcome.artifact}", flush=True)
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        code = 2 if is_user_error(error) else 1
        word = {"error": told(error), "user": code == 2}
    storage.write(f"jobs/{name}/outcome/outcome.json", json.dumps(word).encode())
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
