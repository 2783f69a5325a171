"""A KFP server, spoken to through the official client: who it is, a run or a recurring run, and how a run goes."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN = "KFP_EXISTING_TOKEN"  # a bearer token; from the environment only, so that no process list shows it
FINISHED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED", "ERROR")
POLL_SECONDS = 5.0
PATIENCE_SECONDS = 600.0  # how long the server may be out of reach while a run is followed


class RunFailed(RuntimeError):
    """A run ended otherwise than in success; the message says where to look."""

    user = False


@dataclass(frozen=True)
class Submitted:
    """A run, or a recurring run, that the server has taken."""

    identifier: str
    url: str


class Server:
    """A Kubeflow Pipelines API server.

    host: its URL, as `kfp` takes it (a port-forward of `svc/ml-pipeline-ui`, or the address of the UI).
    namespace: the profile's namespace where KFP is multi-user.
    Raises ValueError when nothing that speaks the v2beta1 API answers there, or it refuses the token.
    """

    def __init__(self, host: str, namespace: str | None = None) -> None:
        self.host = (host if host.startswith("http") else f"https://{host}").rstrip("/")
        self.namespace = namespace
        _greet(self.host)
        from kfp import Client

        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            more = {"namespace": namespace} if namespace else {}
            self.client: Any = Client(host=self.host, existing_token=os.environ.get(TOKEN), **more)

    def create_run(
        self,
        package: Path,
        arguments: Mapping[str, Any],
        *,
        experiment: str,
        name: str,
        caching: bool | None = None,
        pipeline_root: str | None = None,
        service_account: str | None = None,
    ) -> Submitted:
        """Start a run of a compiled pipeline. `caching` None leaves it as compiled: off, for the store is the cache."""
        with _said(self.host), _quiet():
            run = self.client.run_pipeline(
                self._experiment(experiment),
                name,
                pipeline_package_path=str(package),
                params=dict(arguments),
                enable_caching=caching,
                pipeline_root=pipeline_root,
                service_account=service_account,
            )
        return Submitted(run.run_id, f"{self.host}/#/runs/details/{run.run_id}")

    def create_recurring_run(
        self,
        package: Path,
        arguments: Mapping[str, Any],
        *,
        experiment: str,
        name: str,
        cron: str | None = None,
        every_seconds: int | None = None,
        caching: bool | None = None,
        pipeline_root: str | None = None,
        service_account: str | None = None,
    ) -> Submitted:
        """Have the pipeline run again and again, one run at a time, missed times not made up for.

        cron: six fields, seconds first (`0 0 3 * * *` is three in the morning).
        """
        with _said(self.host), _quiet():
            made = self.client.create_recurring_run(
                self._experiment(experiment),
                name,
                cron_expression=cron,
                interval_second=every_seconds,
                max_concurrency=1,
                no_catchup=True,
                params=dict(arguments),
                pipeline_package_path=str(package),
                enable_caching=caching,
                pipeline_root=pipeline_root,
                service_account=service_account,
            )
        return Submitted(made.recurring_run_id, f"{self.host}/#/recurringrun/details/{made.recurring_run_id}")

    def _experiment(self, name: str) -> str:
        made = self.client.create_experiment(name, namespace=self.namespace)
        return str(made.experiment_id)

    def wait(self, run_id: str, tell: Callable[[str, str, str], None], poll_seconds: float = POLL_SECONDS) -> None:
        """Wait until a run has ended, calling `tell(task, state, error)` whenever a task's state changes.

        A server out of reach is asked again for ten minutes: the run does not depend on this process. Raises RunFailed.
        """
        seen: dict[str, str] = {}
        lost_since: float | None = None
        while True:
            try:
                run = self.client.get_run(run_id)
            except Exception as error:
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > PATIENCE_SECONDS or _status(error) in (401, 403, 404):
                    raise RunFailed(
                        f"{self.host} no longer tells of run {run_id} ({_brief(error)}); the run itself goes on"
                    ) from error
                time.sleep(poll_seconds)
                continue
            lost_since = None
            for task, state, problem in _tasks(run):
                if seen.get(task) != state:
                    seen[task] = state
                    tell(task, state, problem)
            if (run.state or "").upper() in FINISHED:
                break
            time.sleep(poll_seconds)
        if run.state.upper() != "SUCCEEDED":
            failed = [f"{task}: {problem}" if problem else task for task, state, problem in _tasks(run) if _bad(state)]
            where = "; ".join(failed) or (run.error.message if run.error else "the server does not say where")
            raise RunFailed(f"run {run_id} ended as {run.state}: {where}")


def _bad(state: str) -> bool:
    return state in ("FAILED", "ERROR", "CANCELED")


def _tasks(run: Any) -> Iterator[tuple[str, str, str]]:
    """(display name, state, error) of the tasks that the server tells of, the run itself and its drivers left out."""
    details = run.run_details.task_details if run.run_details else None
    for task in details or []:
        name = task.display_name or ""
        if name and name != "root" and not name.endswith("-driver") and name != run.display_name:
            yield name, (task.state or "PENDING").upper(), task.error.message if task.error else ""


def _greet(host: str) -> None:
    request = urllib.request.Request(f"{host}/apis/v2beta1/healthz", headers={"Accept": "application/json"})
    if os.environ.get(TOKEN):
        request.add_header("Authorization", f"Bearer {os.environ[TOKEN]}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise ValueError(f"{host} refuses us (HTTP {error.code}): put a valid bearer token into {TOKEN}") from error
        raise ValueError(
            f"{host} is no KFP API server: {error.url} answers HTTP {error.code}; give the address that `kfp` uses"
        ) from error
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(
            f"no KFP server answers at {host} ({reason}); is the port-forward up, and --host right?"
        ) from error


@contextmanager
def _said(host: str) -> Iterator[None]:
    """Refusals of the server as one line."""
    import kfp_server_api

    try:
        yield
    except kfp_server_api.ApiException as error:
        raise ValueError(f"{host} refused it: {_brief(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The client prints links to everything it makes; we print the one that matters."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)


def _status(error: Exception) -> int | None:
    return getattr(error, "status", None)


def _brief(error: Exception) -> str:
    body = getattr(error, "body", None)
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or str(error)
    return f"HTTP {_status(error)} {' '.join(text.split())[:300]}" if _status(error) else str(error)[:300]
