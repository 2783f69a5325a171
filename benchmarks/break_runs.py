"""Whole micro runs under faults; after each, the same command again, and every digest must be that of a calm run.

    python benchmarks/break_runs.py [--only drop,busy,...]

Prints a row per fault and, as its last line, one JSON object. The faults: `drop` (S3 cuts 2 % of the connections),
`busy-stage` and `busy-training` (S3 answers 503 for 30 s in the middle of one), `gone` (S3 gone while a version is
published), `head-stage` and `head-training` (Ray's head killed in the middle of one), `disk-stage` and `disk-training`
(a full disk; needs the right to mount a tmpfs), `clock-forth` and `clock-back` (the clock jumps by a day; needs
Debian's `faketime`), `twice` and `twice-s3` (two runs of the same recipe at once).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import boto3
import psutil
from moto.server import ThreadedMotoServer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "pipelines"))
from faulty_s3 import FaultyS3
from micro_runs import digests

from pipelines.sample_pool import build_sample_pool

LIBFAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
PATIENCE_SECONDS = 500
DAY = 86400


@dataclass
class Scene:
    """What a fault has to work with: pool, folder, the calm run's versions and digests by step."""

    pool: Path
    folder: Path
    calm: dict[str, tuple[str, str | None]]
    server: str
    roots: int = field(default=0)

    def local(self) -> Path:
        """A fresh root on disk."""
        self.roots += 1
        return self.folder / f"root{self.roots}"

    def bucket(self) -> str:
        """A fresh root on S3."""
        self.roots += 1
        boto3.client("s3", endpoint_url=self.server).create_bucket(Bucket=f"bucket{self.roots}")
        return f"s3://bucket{self.roots}/root"

    def start(self, root: Path | str, *more: str, **environment: str) -> subprocess.Popen[str]:
        """Start the run as a user does."""
        line = [sys.executable, "-m", "pipelines.cli", "run", "--pool", str(self.pool), "--preset", "micro", *more]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        changed = {**os.environ, "COLUMNS": "200", **environment}
        return subprocess.Popen([*line, "--root", str(root)], cwd=self.folder, text=True, env=changed, **pipes)

    def finish(self, root: Path | str, *more: str, **environment: str) -> tuple[int, str]:
        """Run to the end; exit code and output."""
        process = self.start(root, *more, **environment)
        text, _ = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, text


@dataclass(frozen=True)
class Row:
    """What came of a fault. `code` of the disturbed run; `again` of the same command after it, None if not needed."""

    what: str
    code: int
    seconds: float
    again: int | None
    equal: bool
    said: str = ""


def ended(scene: Scene, root: Path | str, run: subprocess.Popen[str], began: float, what: str, *more: str) -> Row:
    """Wait for a disturbed run, run the same again unless it succeeded, compare."""
    text, _ = run.communicate(timeout=PATIENCE_SECONDS)
    seconds = time.monotonic() - began
    again = scene.finish(root, *more) if run.returncode else None
    last = [line for line in text.splitlines() if "error" in line.lower() or "Error" in line]
    if again is not None and again[0]:
        print(again[1][-2000:], file=sys.stderr)
    equal = compared(scene, root)
    return Row(what, run.returncode, seconds, again[0] if again else None, equal, last[-1][:300] if last else "")


def compared(scene: Scene, root: Path | str) -> bool:
    """Whether every step has the version and digest of the calm run."""
    return digests(root) == scene.calm


@contextmanager
def link(scene: Scene) -> Iterator[FaultyS3]:
    """A link to the S3 server, named by the environment."""
    made = FaultyS3(scene.server)
    os.environ["AWS_ENDPOINT_URL"] = made.url
    try:
        yield made
    finally:
        os.environ["AWS_ENDPOINT_URL"] = scene.server
        made.close()


def until(run: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """Wait for a moment of a run. Raises RuntimeError when the run ends before."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        if run.poll() is not None or time.monotonic() > deadline:
            said = run.stdout.read() if run.stdout and run.poll() is not None else ""
            raise RuntimeError(f"the moment never came; the run printed {said[-2000:]}")
        time.sleep(0.02)


def drop(scene: Scene) -> Row:
    root = scene.bucket()
    with link(scene) as faults:
        faults.drop, began = 0.02, time.monotonic()
        row = ended(scene, root, scene.start(root), began, "S3 cuts 2 % of the connections")
        return replace(row, what=f"{row.what}: {faults.dropped} of {faults.dropped + faults.served}")


def busy(scene: Scene, part: str) -> Row:
    root = scene.bucket()
    with link(scene) as faults:
        faults.hide, faults.hide_s, began = part, 30.0, time.monotonic()
        row = ended(scene, root, scene.start(root), began, f"S3 answers 503 for 30 s from the first {part}")
        return replace(row, what=f"{row.what}: {faults.refused} refused")


def gone(scene: Scene) -> Row:
    root = scene.bucket()
    with link(scene) as faults:
        version, began = scene.calm["pretrain"][0], time.monotonic()
        faults.hide, faults.hide_s = f"PUT /{root[5:]}/backbone/{version}/manifest.json", 3600.0
        run = scene.start(root)
        until(run, lambda: faults.refused > 0)
        text, _ = run.communicate(timeout=PATIENCE_SECONDS)
        seconds = time.monotonic() - began
        faults.down_until = 0.0
        half = "pretrain" in digests(root)
        code, _ = scene.finish(root)
        what = f"S3 gone while pretrain publishes (half a version: {'yes' if half else 'no'})"
        return Row(what, run.returncode, seconds, code, not half and compared(scene, root), last_error(text))


def last_error(text: str) -> str:
    """The line of a run's output that says what went wrong."""
    lines = [line for line in text.splitlines() if "rror" in line]
    return lines[-1][:300] if lines else ""


def family(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes below a run."""
    return psutil.Process(run.pid).children(recursive=True)


def called(process: psutil.Process) -> str:
    """A process's command line, empty when it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def head(scene: Scene, moment: str, *more: str) -> Row:
    """`moment`: how a process of Ray is called, or a glob below the root."""
    root, began = scene.local(), time.monotonic()
    run = scene.start(root, *more)
    if moment.startswith("ray::"):
        until(run, lambda: any(moment in called(p) for p in family(run)))
    else:
        until(run, lambda: any(root.glob(moment)))
    (server,) = [p for p in family(run) if "gcs_server" in called(p).split(" ")[0]]
    server.kill()
    killed = time.monotonic()
    row = ended(scene, root, run, began, f"Ray's head killed at {moment}", *more)
    return replace(row, said=f"{row.said} [{row.seconds - (killed - began):.0f} s after the kill]")


def disk(scene: Scene, moment: str) -> Row:
    """The root is a tmpfs, which at `moment` (a glob) shrinks to what it holds."""
    root = scene.local()
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(root)], check=True)
    try:
        began = time.monotonic()
        run = scene.start(root)
        until(run, lambda: any(root.glob(moment)))
        while run.poll() is None:  # it goes on deleting and writing
            usage = os.statvfs(root)
            used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
            subprocess.run(["mount", "-o", f"remount,size={used}", str(root)], capture_output=True)
            time.sleep(0.05)
        text, _ = run.communicate(timeout=PATIENCE_SECONDS)
        seconds = time.monotonic() - began
        subprocess.run(["mount", "-o", "remount,size=2g", str(root)], check=True)
        code, _ = scene.finish(root)
        return Row(f"disk full at {moment}", run.returncode, seconds, code, compared(scene, root), last_error(text))
    finally:
        subprocess.run(["umount", str(root)], check=True)


def clock(scene: Scene, seconds: int) -> Row:
    root, offset = scene.local(), scene.folder / "offset"
    offset.write_text("+0\n")
    faked = {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1"}
    began = time.monotonic()
    run = scene.start(root, FAKETIME_DONT_FAKE_MONOTONIC="1", DONT_FAKE_MONOTONIC="1", **faked)
    until(run, lambda: any(root.glob("backbone/*/work/step_*")))
    offset.write_text(f"{seconds:+d}\n")
    row = ended(scene, root, run, began, f"clock jumps by {seconds:+d} s in the middle of pretrain")
    return row


def twice(scene: Scene, root: Path | str) -> Row:
    began = time.monotonic()
    runs = [scene.start(root), scene.start(root)]
    texts = [run.communicate(timeout=PATIENCE_SECONDS)[0] for run in runs]
    codes = [run.returncode for run in runs]
    seconds = time.monotonic() - began
    code, _ = scene.finish(root)
    said = "; ".join(last_error(text) for text in texts)
    where = "S3" if isinstance(root, str) else "disk"
    what = f"two runs at once on {where}, exit codes {codes}"
    return Row(what, min(codes), seconds, code, compared(scene, root), said)


FAULTS: dict[str, Callable[[Scene], Row]] = {
    "drop": drop,
    "busy-stage": lambda scene: busy(scene, "/scores/"),
    "busy-training": lambda scene: busy(scene, "/backbone/"),
    "gone": gone,
    "twice": lambda scene: twice(scene, scene.local()),
    "twice-s3": lambda scene: twice(scene, scene.bucket()),
    "disk-stage": lambda scene: disk(scene, "scores/*/lease.json"),
    "disk-training": lambda scene: disk(scene, "backbone/*/work/step_*"),
    "clock-forth": lambda scene: clock(scene, DAY),
    "clock-back": lambda scene: clock(scene, -DAY),
    "head-stage": lambda scene: head(scene, "ray::_MapWorker", "--set", "detect.workers=1"),
    "head-training": lambda scene: head(scene, "backbone/*/work/step_*", "--set", "pretrain.workers=1"),
}


def main() -> None:
    """Do the faults that were asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(FAULTS), help="names, with commas")
    names = parser.parse_args().only.split(",")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    where = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "REGION": "us-east-1", "ENDPOINT_URL": where}
    os.environ |= {f"AWS_{name}": value for name, value in keys.items()} | {"AWS_DEFAULT_REGION": "us-east-1"}
    with tempfile.TemporaryDirectory(prefix="break-") as name:
        folder = Path(name)
        pool = build_sample_pool(folder / "pool", size="micro")
        scene = Scene(pool, folder, {}, where)
        began, calm = time.monotonic(), scene.local()
        code, text = scene.finish(calm)
        if code:
            raise SystemExit(text[-3000:])
        scene.calm = digests(calm)
        print(f"calm run: {time.monotonic() - began:.0f} s, {len(scene.calm)} steps", flush=True)
        good = []
        for fault in names:
            row = FAULTS[fault](scene)
            good.append(row.equal and row.again in (None, 0))
            again = "not needed" if row.again is None else f"exit {row.again}"
            print(f"{fault:<14}{row.what}: exit {row.code} after {row.seconds:.0f} s; again: {again}; ", end="")
            print(f"digests {'equal' if row.equal else 'DIFFER'}\n    said: {row.said or 'nothing'}", flush=True)
    print(json.dumps({"faults": len(names), "good": sum(good)}))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
