"""A job of a Ray cluster, through its Jobs API: started or found again, its log passed on, stopped when we are.

The job belongs to the cluster: a connection that is lost, or this process being killed, does not end it. A request to
end this process (SIGTERM, Ctrl-C) does.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from components.job import JobFailed

TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")
PATIENCE_S = 900.0  # how long a cluster may be out of reach
STOP_S = 20.0  # how long a stopped job may take to save what it has


class Cancelled(BaseException):
    """This process was asked to end."""


class Cancellation:
    """Whether this process was asked to end (SIGTERM), read by whatever waits.

    The signal also raises Cancelled where it meets the main thread, so that a call that blocks is left at once. That
    alone is not enough: Python only prints what is raised within a finalizer, and libraries catch what they did not
    expect.
    """

    def __init__(self) -> None:
        self._asked = False

    def receive(self, _signal: int, _frame: object) -> None:
        self._asked = True
        raise Cancelled

    def check(self) -> None:
        """Raises Cancelled if this process was asked to end."""
        if self._asked:
            raise Cancelled

    def sleep(self, seconds: float) -> None:
        """Wait. Raises Cancelled soon after this process was asked to end, also where that was before."""
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.5))


@contextmanager
def cancellable() -> Iterator[Cancellation]:
    """SIGTERM as an exception that cannot be lost, so that what runs elsewhere can be stopped too."""
    cancellation = Cancellation()
    if threading.current_thread() is not threading.main_thread():
        yield cancellation
        return
    before = signal.signal(signal.SIGTERM, cancellation.receive)
    try:
        yield cancellation
    finally:
        signal.signal(signal.SIGTERM, before)


def connect(address: str) -> Any:
    """A client of the Jobs API at `address` (default RAY_API_SERVER_ADDRESS). Raises ValueError when none answers."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    token = os.environ.get("RAY_AUTH_TOKEN")  # given here as well, for a process that imported Ray in another mode
    headers = {"Authorization": f"Bearer {token}"} if token else None
    where = address or os.environ.get("RAY_API_SERVER_ADDRESS", "")
    if not where:
        raise ValueError(
            "mode jobs needs the dashboard's URL: set `address` in the placement or RAY_API_SERVER_ADDRESS"
        )
    try:
        return JobSubmissionClient(where, headers=headers)
    except (ConnectionError, RuntimeError, RayError) as error:
        raise ValueError(
            f"no Ray Jobs API answers at {where} ({' '.join(str(error).split())[:200]}); is the cluster up, "
            "and RAY_AUTH_TOKEN its token?"
        ) from error


def run_job(
    address: str,
    name: str,
    entrypoint: str,
    *,
    env: Mapping[str, str] | None = None,
    cpus: float = 0.0,
    gpus: float = 0.0,
    poll_s: float = 5.0,
    before_start: Callable[[], None] = lambda: None,
) -> str:
    """Run a job to its end, its log on our stdout; returns `SUCCEEDED`, `FAILED` or `STOPPED`.

    A job of that name that is at work already is followed, not started twice. `before_start` is called before one is
    started. Raises JobFailed when the cluster stays out of reach, Cancelled after stopping the job.
    """
    with cancellable() as cancellation:
        client = connect(address)
        try:
            _start(client, name, entrypoint, env, cpus, gpus, before_start)
            return follow(client, name, lambda: _status(client, name), poll_s, cancellation)
        except (Cancelled, KeyboardInterrupt):
            print(f"stopping job {name}", flush=True)
            with suppress(Exception):  # the cluster is gone, or the job has just ended
                client.stop_job(name)
                _await_end(client, name)
            raise


def _start(
    client: Any,
    name: str,
    entrypoint: str,
    env: Mapping[str, str] | None,
    cpus: float,
    gpus: float,
    before_start: Callable[[], None],
) -> None:
    known = {job.submission_id: str(job.status.value) for job in client.list_jobs()}
    if name in known and known[name] not in TERMINAL:
        print(f"job {name} is at work already: following it", flush=True)
        return
    if name in known:
        client.delete_job(name)
    before_start()
    client.submit_job(
        entrypoint=entrypoint,
        submission_id=name,
        runtime_env={"env_vars": dict(env)} if env else None,
        entrypoint_num_cpus=cpus or None,
        entrypoint_num_gpus=gpus or None,
    )
    print(f"started job {name} at {client.get_address()}", flush=True)


def _status(client: Any, name: str) -> str:
    return str(client.get_job_status(name).value)


def _await_end(client: Any, name: str) -> None:
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline and _status(client, name) not in TERMINAL:
        time.sleep(0.2)


def follow(
    client: Any, name: str, status: Callable[[], str], poll_s: float, cancellation: Cancellation | None = None
) -> str:
    """Wait for a job's end and print its log as it grows, each line once however often the connection breaks.

    client: None where only `status` can be asked. Raises JobFailed when `status` fails for too long, or the
    cluster has forgotten the job; Cancelled when `cancellation` says so.
    """
    cancellation = cancellation or Cancellation()
    ended = threading.Event()
    log = _Log(client, name, ended)
    log.start()
    lost_since: float | None = None
    try:
        while True:
            try:
                state = status()
                lost_since = None
            except (ConnectionError, OSError, RuntimeError) as error:
                if f"{name} does not exist" in str(error):
                    raise JobFailed(
                        f"the cluster does not know job {name} any more: its head was started anew; what was done is "
                        "kept, the same command goes on"
                    ) from error
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > PATIENCE_S:
                    raise JobFailed(
                        f"the cluster of job {name} has not answered for {PATIENCE_S:.0f} s ({str(error)[:200]}); "
                        "the job may still run: the same command follows it"
                    ) from error
                state = ""
            if state in TERMINAL:
                return state
            cancellation.sleep(poll_s)
    finally:
        ended.set()
        log.join(timeout=10)


class _Log(threading.Thread):
    """Prints a job's log from its beginning; after a broken connection from where it was."""

    def __init__(self, client: Any, name: str, ended: threading.Event) -> None:
        super().__init__(name="job-log", daemon=True)
        self.client, self.job, self.ended, self.printed = client, name, ended, 0

    def run(self) -> None:
        import asyncio

        while self.client is not None:
            with suppress(Exception):  # whatever broke the connection; the state of the job is asked elsewhere
                asyncio.run(self._tail())
            if self.ended.is_set():
                break
            self.ended.wait(1.0)
        if self.client is not None:
            with suppress(Exception):
                self._show(self.client.get_job_logs(self.job))

    async def _tail(self) -> None:
        seen = 0
        async for lines in self.client.tail_job_logs(self.job):
            skip = max(0, self.printed - seen)
            seen += len(lines)
            if lines[skip:]:
                print(lines[skip:], end="", flush=True)
                self.printed = seen

    def _show(self, whole: str) -> None:
        print(whole[self.printed :], end="", flush=True)
        self.printed = max(self.printed, len(whole))
