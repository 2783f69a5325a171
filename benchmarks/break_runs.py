"""Micro runs, stages and trainings under faults; then the same command again: digests must be those of a calm root.

    python benchmarks/break_runs.py [--only drop,gone,...] [--keep FOLDER]

Prints a row per fault and, as its last line, one JSON object. The faults: `drop` (S3 cuts 2 % of the connections of a
whole run), `twice` (two whole runs of the same recipe at once), `gone` (S3 gone while pretrain publishes), `busy-stage`
and `busy-training` (S3 answers 503 for 30 s), `disk-stage` and `disk-training` (the disk is full; needs the right to
mount a tmpfs), `clock-forth` and `clock-back` (the clock jumps by a day in a training; needs Debian's `faketime`),
`head-stage` and `head-training` (Ray's head killed).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
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
from pyarrow import fs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "pipelines"))
from faulty_s3 import FaultyS3
from micro_runs import digests

from pipelines.sample_pool import build_sample_pool

LIBFAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
PATIENCE_SECONDS = 500
DAY = 86400
STAGE = ("step", "score", "--preset", "micro")
TRAINING = ("train", "pretrain", "--preset", "micro", "--set", "pretrain.engine.steps=40")
ON_RAY: dict[str, tuple[str, ...]] = {"step": ("step", "detect", "--preset", "micro", "--set", "detect.workers=1")}
ON_RAY["train"] = (*TRAINING, "--set", "pretrain.workers=1")


@dataclass(frozen=True)
class Row:
    """What came of a fault. `code` of the disturbed command; `again` of the same after it, None if not needed."""

    what: str
    code: int
    seconds: float
    again: int | None
    equal: bool
    said: str


@dataclass
class Scene:
    """What a fault has to work with: a calm root, versions and digests of its steps, an S3 server."""

    folder: Path
    run: tuple[str, ...]
    calm: Path
    server: str
    whole: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # after the run
    made: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # and after a longer training
    roots: int = 0
    outputs: int = 0

    def local(self, without: str = "") -> Path:
        """A root on disk: fresh, or the calm one without a kind."""
        self.roots += 1
        root = self.folder / f"root{self.roots}"
        if without:
            shutil.copytree(self.calm, root, ignore=lambda at, _: [without] if Path(at) == self.calm else [])
        return root

    def bucket(self, without: str = "") -> str:
        """The same on S3."""
        self.roots += 1
        boto3.client("s3", endpoint_url=self.server).create_bucket(Bucket=f"bucket{self.roots}")
        uri = f"s3://bucket{self.roots}/root"
        if without:
            fs.copy_files(str(self.local(without)), uri)
        return uri

    def start(self, command: tuple[str, ...], root: Path | str, **environment: str) -> subprocess.Popen[str]:
        """Start a command as a user does."""
        line = [sys.executable, "-m", "pipelines.cli", *command, "--root", str(root)]
        changed = {**os.environ, "COLUMNS": "200", **environment}
        self.outputs += 1
        output = (self.folder / f"output{self.outputs}").open("w")
        return subprocess.Popen(line, cwd=self.folder, text=True, env=changed, stdout=output, stderr=output)

    def output(self, before: int = 0) -> str:
        """What was printed by the command that was started last, or so many before it."""
        return (self.folder / f"output{self.outputs - before}").read_text()

    def finish(self, command: tuple[str, ...], root: Path | str) -> int:
        """Run to the end; the exit code."""
        code = self.start(command, root).wait(PATIENCE_SECONDS)
        if code:
            print(self.output()[-2000:], file=sys.stderr)
        return code

    def row(
        self, what: str, run: subprocess.Popen[str], began: float, command: tuple[str, ...], root: Path | str
    ) -> Row:
        """The end of a disturbed command, of the same again if it failed, and whether all is as in the calm root."""
        code = run.wait(PATIENCE_SECONDS)
        seconds, said = time.monotonic() - began, last_error(self.output())
        again = self.finish(command, root) if code else None
        return Row(what, code, seconds, again, self.equal(root, command), said)

    def equal(self, root: Path | str, command: tuple[str, ...]) -> bool:
        """Whether every step has the version and digest of the calm root."""
        return digests(root) == (self.whole if command == self.run else self.made)


def last_error(text: str) -> str:
    """The line of an output that says what went wrong."""
    lines = [line for line in text.splitlines() if "rror" in line]
    return lines[-1][:400] if lines else "nothing"


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
    """Wait for a moment of a command. Raises RuntimeError when it ends before."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        if run.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the moment never came")
        time.sleep(0.01)


def drop(scene: Scene) -> Row:
    root = scene.bucket()
    with link(scene) as faults:
        faults.drop, began = 0.02, time.monotonic()
        row = scene.row("S3 cuts 2 % of the connections", scene.start(scene.run, root), began, scene.run, root)
        return replace(row, what=f"{row.what}: {faults.dropped} of {faults.dropped + faults.served} requests")


def busy(scene: Scene, command: tuple[str, ...], kind: str) -> Row:
    root = scene.bucket(without=kind)
    with link(scene) as faults:
        faults.hide, faults.hide_s, began = f"PUT /{root[5:]}/{kind}/", 30.0, time.monotonic()
        row = scene.row("S3 answers 503 for 30 s", scene.start(command, root), began, command, root)
        return replace(row, what=f"{row.what}: {faults.refused} requests refused")


def gone(scene: Scene) -> Row:
    root = scene.bucket(without="backbone")
    with link(scene) as faults:
        version, began = scene.made["pretrain"][0], time.monotonic()
        faults.hide, faults.hide_s = f"PUT /{root[5:]}/backbone/{version}/manifest.json", 3600.0
        run = scene.start(TRAINING, root)
        run.wait(PATIENCE_SECONDS)
        faults.down_until, refused = 0.0, faults.refused
        half = digests(root).get("pretrain") == scene.made["pretrain"]
        row = scene.row("S3 gone at the commit", run, began, TRAINING, root)
        return replace(row, what=f"{row.what}: {refused} refused, half a version: {half}", equal=row.equal and not half)


def called(process: psutil.Process) -> str:
    """A process's command line, empty when it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def head(scene: Scene, command: tuple[str, ...], kind: str, moment: Callable[[Path, list[str]], bool]) -> Row:
    root, began = scene.local(without=kind), time.monotonic()
    run = scene.start(command, root)

    def family() -> list[psutil.Process]:
        return psutil.Process(run.pid).children(recursive=True)

    until(run, lambda: moment(root, [called(process) for process in family()]))
    (server,) = [process for process in family() if "gcs_server" in called(process).split(" ")[0]]
    server.kill()
    killed = time.monotonic()
    row = scene.row(f"Ray's head killed in {kind}", run, began, command, root)
    return replace(row, what=f"{row.what}: ended {row.seconds - (killed - began):.0f} s after the kill")


def disk(scene: Scene, command: tuple[str, ...], kind: str, moment: str) -> Row:
    """The root is a tmpfs, which at `moment` (a glob) shrinks to what it holds."""
    root = scene.local()
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(root)], check=True)
    try:
        shutil.copytree(scene.local(without=kind), root, dirs_exist_ok=True)
        began = time.monotonic()
        run = scene.start(command, root)
        until(run, lambda: any(root.glob(moment)))
        while run.poll() is None:  # it goes on deleting and writing
            usage = os.statvfs(root)
            used = (usage.f_blocks - usage.f_bfree) * usage.f_frsize
            subprocess.run(["mount", "-o", f"remount,size={used}", str(root)], capture_output=True)
            time.sleep(0.02)
        subprocess.run(["mount", "-o", "remount,size=2g", str(root)], check=True)
        return scene.row(f"disk full at {moment}", run, began, command, root)
    finally:
        subprocess.run(["umount", str(root)], check=True)


def clock(scene: Scene, seconds: int) -> Row:
    root, offset = scene.local(without="backbone"), scene.folder / "offset"
    offset.write_text("+0\n")
    faked = {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_CACHE_DURATION": "1"}
    began = time.monotonic()
    run = scene.start(TRAINING, root, FAKETIME_DONT_FAKE_MONOTONIC="1", DONT_FAKE_MONOTONIC="1", **faked)
    until(run, lambda: any(root.glob("backbone/*/work/step_*")))
    offset.write_text(f"{seconds:+d}\n")
    return scene.row(f"the clock jumps by {seconds:+d} s in pretrain", run, began, TRAINING, root)


def twice(scene: Scene, root: Path | str) -> Row:
    began = time.monotonic()
    runs = [scene.start(scene.run, root), scene.start(scene.run, root)]
    codes = [run.wait(PATIENCE_SECONDS) for run in runs]
    said = " / ".join(last_error(scene.output(before)) for before in (1, 0))
    row = scene.row("", runs[0], began, scene.run, root)
    code = 0 if row.code == 0 else scene.finish(scene.run, root)
    where = "S3" if isinstance(root, str) else "disk"
    return replace(row, what=f"two runs at once on {where}, exit codes {codes}", again=code, said=said)


FAULTS: dict[str, Callable[[Scene], Row]] = {
    "disk-stage": lambda scene: disk(scene, STAGE, "scores", "scores/*/lease.json"),
    "disk-training": lambda scene: disk(scene, TRAINING, "backbone", "backbone/*/work/step_*"),
    "head-stage": lambda scene: head(
        scene, ON_RAY["step"], "detections", lambda _, calls: any("ray::" in c and "Worker" in c for c in calls)
    ),
    "head-training": lambda scene: head(
        scene, ON_RAY["train"], "backbone", lambda root, _: any(root.glob("backbone/*/work/step_*"))
    ),
    "clock-back": lambda scene: clock(scene, -DAY),
    "clock-forth": lambda scene: clock(scene, DAY),
    "busy-stage": lambda scene: busy(scene, STAGE, "scores"),
    "busy-training": lambda scene: busy(scene, TRAINING, "backbone"),
    "gone": gone,
    "drop": drop,
    "twice": lambda scene: twice(scene, scene.local()),
    "twice-s3": lambda scene: twice(scene, scene.bucket()),
}


def main() -> None:
    """Do the faults that were asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(FAULTS), help="names, with commas")
    parser.add_argument("--keep", type=Path, help="folder for the pool and the calm root, made when not there")
    options = parser.parse_args()
    names = options.only.split(",")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    where = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "REGION": "us-east-1", "ENDPOINT_URL": where}
    os.environ |= {f"AWS_{name}": value for name, value in keys.items()} | {"AWS_DEFAULT_REGION": "us-east-1"}
    with tempfile.TemporaryDirectory(prefix="break-") as name:
        folder = Path(name)
        kept = (options.keep or folder).absolute()
        pool = build_sample_pool(kept / "pool", size="micro")
        scene = Scene(folder, ("run", "--pool", str(pool), "--preset", "micro"), kept / "calm", where)
        began = time.monotonic()
        if scene.finish(scene.run, scene.calm):
            raise SystemExit("the calm run failed")
        scene.whole = digests(scene.calm)
        if scene.finish(TRAINING, scene.calm):
            raise SystemExit("the calm training failed")
        scene.made = digests(scene.calm)
        print(f"calm: {time.monotonic() - began:.0f} s, {len(scene.made)} steps", flush=True)
        good = []
        for fault in names:
            row = FAULTS[fault](scene)
            good.append(row.equal and row.again in (None, 0))
            again = "not needed" if row.again is None else f"exit {row.again}"
            print(f"{fault:<14}{row.what}; exit {row.code} after {row.seconds:.0f} s; again: {again}; ", end="")
            print(f"digests {'equal' if row.equal else 'DIFFER'}\n    said: {row.said}", flush=True)
    print(json.dumps({"faults": len(names), "good": sum(good)}))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
