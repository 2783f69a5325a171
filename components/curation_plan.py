"""What curating N pictures would take: hours, core-hours, GPU-hours, storage, shuffle and memory of every step.

The rates are measured: a shipped table (curation_rates.json, each line with its source), or the manifests of a run of
one's own. A step's time is seconds = rate * rows * (rows / measured rows)^(exponent - 1).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from components.artifacts import Store
from components.steps import STEPS
from curation.dedup.hamming import estimate
from curation.stages.dedup import DedupConfig

TABLE = Path(__file__).with_name("curation_rates.json")
ORDER = ("ingest", "detect", "score", "filter", "dedup", "cluster", "balance", "export")
PER_PICTURE = ("ingest", "detect", "score", "export")  # spread over all cores; the others work in one process
PROFILES = ("builtin", "small", "full")
# Dedup's searches took 1.6 to 2.6 times the model's seconds at 8,066 to 810,253 rows (benchmarks/curation_scale.py).
# The model has the sorts and checks of tables of uniform codes, not the joining of what they found.
OVER_MODEL = 2.0
# What a run of one's own must have for its numbers to say what a row costs: a step's start takes up to 8 s whatever it
# works on (benchmarks/results/ray_overhead.md), and the frame of its files up to 10 kB.
LEAST_SECONDS, LEAST_ROWS = 60.0, 1000
SENT_BYTES, HELD_BYTES = 16, 24  # of a code in the shuffle, for each table; of a code in one process


@dataclass(frozen=True)
class Rate:
    """What a row costs in one step. `source` says where the numbers come from."""

    core_seconds: float  # of one core
    source: str
    at_rows: float = 1.0  # how many rows it was measured on
    exponent: float = 1.0  # of time in rows
    gpu_seconds: float = 0.0
    stored_bytes: float = 0.0  # written for each row that comes in
    memory_bytes: float = 0.0  # of the one process, for each row
    shuffle_bytes: float = 0.0  # moved between machines, for each row
    kept: float = 1.0  # rows out of a row in

    def seconds(self, rows: float) -> float:
        """Core-seconds of so many rows."""
        return self.core_seconds * rows * max(rows / self.at_rows, 1e-9) ** (self.exponent - 1) if rows else 0.0


@dataclass(frozen=True)
class Rates:
    """Of every step; what a picture weighs on the network; what they were measured on."""

    steps: Mapping[str, Rate]
    image_bytes: float
    hardware: str


@dataclass(frozen=True)
class StepPlan:
    """One step of the plan. Sizes in bytes."""

    step: str
    rows: float
    core_hours: float
    gpu_hours: float
    hours: float
    bound: str  # what the hours come from: cpu, gpu, network, one process
    stored: float
    shuffled: float
    memory: float  # of the one process of a global step
    source: str


def shipped(profile: str) -> Rates:
    """The shipped table. Raises ValueError for an unknown profile."""
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; choose one of {', '.join(PROFILES)}")
    table = json.loads(TABLE.read_text())
    steps = {name: Rate(**(table["steps"].get(f"{name} {profile}") or table["steps"][name])) for name in ORDER}
    return Rates(steps, table["image_bytes"], table["hardware"])


def measured(store: Store, rates: Rates) -> Rates:
    """The rates of the newest run under a root, where it has them; the exponents and GPU times of the table stay.

    So do the time of a step that took less than LEAST_SECONDS, and the bytes of one with less than LEAST_ROWS: a start
    that is multiplied by a million is no rate. Raises ValueError when there is no run.
    """
    found = dict(rates.steps)
    image_bytes, hardware = rates.image_bytes, rates.hardware
    for name in ORDER:
        artifact = store.latest(STEPS[name].latest_name)
        metrics = artifact.manifest.metrics if artifact else {}
        rows = metrics.get("rows_in") or 0
        if artifact is None or not rows:
            continue
        workers = max(1, artifact.manifest.config.get("workers", 1))
        if name == "ingest" and metrics.get("images"):
            images = artifact.read("images", ["n_bytes"])["n_bytes"].to_pylist()
            image_bytes = sum(images) / len(images)
        own: dict[str, Any] = {"kept": metrics.get("images", metrics.get("kept", rows)) / rows}
        said = f"{artifact}, {rows} rows on {workers} worker(s)"
        if metrics["seconds"] >= LEAST_SECONDS:
            own |= {"core_seconds": metrics["seconds"] * workers / rows, "at_rows": rows}
            hardware = artifact.manifest.environment.get("platform", hardware)
        else:
            said += f"; its {metrics['seconds']:.1f} s are too few beside its start, so the time is the table's"
        if rows >= LEAST_ROWS:
            own["stored_bytes"] = sum(entry.bytes for entry in artifact.manifest.files if entry.table) / rows
        found[name] = replace(rates.steps[name], **own, source=said)
    if found == dict(rates.steps):
        raise ValueError(f"there is no run under {store.root} to take rates from; leave --root out for the table")
    return Rates(found, image_bytes, hardware)


def plan(rates: Rates, images: float, *, cpus: int, gpus: int = 0, network_gbit: float = 0.0) -> list[StepPlan]:
    """Every step on `images` listed pictures. network_gbit: of all machines together, 0 for a pool that is there.

    Raises ValueError when a count is not positive, or steps need a GPU and there is none.
    """
    if not 1 <= images < math.inf or cpus < 1 or gpus < 0:
        raise ValueError(f"a plan needs pictures and cores: images={images:g}, cpus={cpus}, gpus={gpus}")
    made: list[StepPlan] = []
    rows = float(images)
    for name in ORDER:
        rate = rates.steps[name]
        if name == "dedup":
            made.append(_hashes(rows, cpus))
        if rate.gpu_seconds and not gpus:
            raise ValueError(f"{name} of this profile needs a GPU; give --gpus, or choose --profile small")
        core, gpu = rate.seconds(rows) / 3600, rate.gpu_seconds * rows / 3600
        spread = core / (cpus if name in PER_PICTURE else 1)
        hours = {"cpu" if name in PER_PICTURE else "one process": spread}
        if gpu:
            hours["gpu"] = gpu / gpus
        if name == "ingest" and network_gbit:
            hours["network"] = rows * rates.image_bytes / (network_gbit * 1e9 / 8) / 3600
        bound = max(hours, key=lambda what: hours[what])
        sizes = (rate.stored_bytes * rows, rate.shuffle_bytes * rows, rate.memory_bytes * rows)
        made.append(StepPlan(name, rows, core, gpu, hours[bound], bound, *sizes, rate.source))
        rows *= rate.kept
    return made


def hash_seconds(rows: float) -> float:
    """Core-seconds of dedup's exact searches among the hashes of so many pictures."""
    return OVER_MODEL * sum(seconds for seconds, _ in _searches(rows))


def _searches(rows: float) -> list[tuple[float, int]]:
    """(seconds of the model, tables) of each search: among the hashes, and among these and those of mirror images."""
    return [estimate(max(2, round(codes)), DedupConfig().hash_candidate_radius) for codes in (rows, 2 * rows)]


def _hashes(rows: float, cpus: int) -> StepPlan:
    """The exact searches among hashes, which grow faster than the rest of dedup: in one process, or as shuffles."""
    seconds, (alone, mirrored) = hash_seconds(rows), [tables for _, tables in _searches(rows)]
    shuffled = rows >= DedupConfig().shuffle_from
    hours = seconds / 3600 / (cpus if shuffled else 1)
    sent = rows * (alone + 2 * mirrored) * SENT_BYTES
    sizes = (0.0, sent if shuffled else 0.0, 0.0 if shuffled else 2 * rows * HELD_BYTES)
    source = "cost model of curation.dedup.hamming, held against benchmarks/curation_scale.py"
    return StepPlan("hashes", rows, seconds / 3600, 0.0, hours, "cpu" if shuffled else "one process", *sizes, source)


def largest_pool(rates: Rates, memory_bytes: float) -> float:
    """How many listed pictures the global steps hold in one process of so much memory."""
    rows, most = 1.0, float("inf")
    for name in ORDER:
        rate = rates.steps[name]
        if rate.memory_bytes:
            most = min(most, memory_bytes / (rate.memory_bytes * rows))
        rows *= rate.kept
    return most


def as_record(step: StepPlan) -> dict[str, Any]:
    """A step of a plan for JSON."""
    return {field.name: getattr(step, field.name) for field in fields(step)}
