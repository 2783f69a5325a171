"""Which checkpoint of a backbone to go on with: every kept one is probed, the best on validation scenes is reported."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import Any

import torch

from sapiens2.engine import storage
from sapiens2.engine.config import EngineConfig
from sapiens2.engine.world import cpu_threads
from sapiens2.evaluation.bootstrap import Estimate
from sapiens2.evaluation.candidates import Probed, Run, best, run_of
from sapiens2.evaluation.config import SelectionConfig
from sapiens2.evaluation.frozen import load_backbone, open_backbone
from sapiens2.evaluation.probe import ProbeResult
from sapiens2.evaluation.probe_parts import ProbeParts, Progress
from sapiens2.evaluation.probe_scenes import ProbeScenes
from sapiens2.evaluation.provenance import provenance
from sapiens2.evaluation.select_report import selection_fragment
from sapiens2.evaluation.tables import paper_table, probe_rows


def select(
    config: SelectionConfig,
    *,
    run: str,
    files: Sequence[str],
    out: str,
    name: str = "",
    state: str = "",
    code: str = "",
    progress: Progress = lambda done, total, note: None,
) -> dict[str, Any]:
    """Probe the checkpoints of the pretraining run, or the imported weights, in the folder or URI `run` with `files`.

    Writes `<out>/{config.json, fragment.json, table.csv, table.tex, metrics.json}`, metrics.json last, and returns it:
    `chosen` and `last` (file, step, validation score), every candidate's values, and the chosen one's test metrics with
    intervals. The tables have the layout of the paper's table of dense probes; `name` is the run's in them. state: a
    folder or URI of this very probe, for what a kill shall leave; code: names the code that measures. Raises
    ValueError for a size of pictures that the backbone cannot take, and for an unknown backbone to compare with.
    """
    with cpu_threads(EngineConfig()):  # leaves a core free: two threads on a busy pair of cores wait for each other
        about = run_of(json.loads(storage.read_bytes(storage.join(run, "config.json"))), files, config.checkpoints)
        parts = ProbeParts(
            config,
            ProbeScenes(config),
            len(about.candidates) + 1 + len(config.compare),
            state=state,
            code=code,
            progress=progress,
        )
        return _select(config, run, about, parts, out, name)


def _select(config: SelectionConfig, run: str, about: Run, parts: ProbeParts, out: str, name: str) -> dict[str, Any]:
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # timm:NAME:random would have other weights after a kill
        others = [open_backbone(name, cell=about.stride) for name in config.compare]
    backbones, probed = [], []
    for place, candidate in enumerate(about.candidates):
        backbones.append(load_backbone(storage.join(run, candidate.file), candidate.name, about.architecture))
        probed.append(Probed(candidate, *parts.measure(f"checkpoint_{place}", backbones[-1], "val")))
    highest = best([each.result.score for each in probed])
    chosen = probed[highest]
    measured = [parts.measure("chosen", backbones[highest], "test", chosen.fitted)]
    measured += [parts.measure(f"other_{place}", other, "test") for place, other in enumerate(others)]
    tested, results = [fitted for fitted, _ in measured], [result for _, result in measured]
    metrics = {"size": about.size} | _metrics(config, probed, chosen, results, [other.origin for other in others])
    metrics["seconds"] = round(time.perf_counter() - began, 3)
    rows = probe_rows(metrics, provenance(config.model_dump(mode="json"), metrics, checkpoint=name))
    table = paper_table("probe", rows)
    fragment = selection_fragment(config, probed, chosen, results, tested)
    fragment["sections"].append(table.section())
    for suffix, text in (("csv", table.csv()), ("tex", table.latex())):
        storage.write_bytes(storage.join(out, f"table.{suffix}"), text.encode())
    for file, content in (("config", config.model_dump(mode="json")), ("fragment", fragment), ("metrics", metrics)):
        storage.write_bytes(storage.join(out, f"{file}.json"), json.dumps(content, indent=2, allow_nan=False).encode())
    parts.tell()
    return metrics


def _metrics(
    config: SelectionConfig,
    probed: Sequence[Probed],
    chosen: Probed,
    results: Sequence[ProbeResult],
    origins: Sequence[str],
) -> dict[str, Any]:
    ours, *others = results
    told = [
        {"name": p.candidate.name, "file": p.candidate.file, "step": p.candidate.step, "score": p.result.score}
        | {"validation": {key: _number(value) for key, value in p.result.main.items()}}
        for p in probed
    ]
    by_name = {each["name"]: each for each in told}
    kept = ("name", "file", "step", "score")
    return {
        "chosen": {key: by_name[chosen.candidate.name][key] for key in kept},
        "last": {key: told[-1][key] for key in kept},
        "candidates": told,
        "n_test": config.n_test,
        "score": ours.score,
        "main": "segmentation" if "segmentation" in ours.main else next(iter(ours.main)),
        "metrics": {key: _interval(estimate) for key, estimate in ours.estimates.items()},
        "baseline": {key: _number(value) for key, value in ours.baseline.items()},
        "printed": {key: _interval(estimate) for key, estimate in ours.printed.items()},
        "others": [
            {"name": other.backbone, "score": other.score, "checkpoint": origin}
            | {"printed": {key: _interval(estimate) for key, estimate in other.printed.items()}}
            | {"metrics": {key: _interval(estimate) for key, estimate in other.estimates.items()}}
            for other, origin in zip(others, origins, strict=True)
        ],
        "seed": config.seed,
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _interval(estimate: Estimate) -> dict[str, float | None]:
    return {name: _number(getattr(estimate, name)) for name in ("value", "low", "high")}
