"""Which checkpoint of a backbone to go on with: every kept one is probed, the best on validation scenes is reported."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from sapiens2.engine import storage
from sapiens2.engine.config import EngineConfig
from sapiens2.engine.world import cpu_threads
from sapiens2.evaluation.bootstrap import Estimate
from sapiens2.evaluation.candidates import Probed, best, run_of
from sapiens2.evaluation.config import SelectionConfig
from sapiens2.evaluation.frozen import load_backbone, open_backbone
from sapiens2.evaluation.probe import FittedProbe, ProbeResult
from sapiens2.evaluation.probe_scenes import ProbeScenes
from sapiens2.evaluation.provenance import provenance
from sapiens2.evaluation.select_report import selection_fragment
from sapiens2.evaluation.tables import paper_table, probe_rows

Progress = Callable[[int, int], None]


def select(
    config: SelectionConfig,
    *,
    run: str,
    files: Sequence[str],
    out: str,
    name: str = "",
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Probe the checkpoints of the pretraining run, or the imported weights, in the folder or URI `run` with `files`.

    Writes `<out>/{config.json, fragment.json, table.csv, table.tex, metrics.json}`, metrics.json last, and returns it:
    `chosen` and `last` (file, step, validation score), every candidate's values, and the chosen one's test metrics with
    intervals. The tables have the layout of the paper's table of dense probes; `name` is the run's in them. Raises
    ValueError for a size of pictures that the backbone cannot take, and for an unknown backbone to compare with.
    """
    with cpu_threads(EngineConfig()):  # leaves a core free: two threads on a busy pair of cores wait for each other
        return _select(config, run, files, out, name, progress)


def _select(
    config: SelectionConfig, run: str, files: Sequence[str], out: str, name: str, progress: Progress
) -> dict[str, Any]:
    began = time.perf_counter()
    about = run_of(json.loads(storage.read_bytes(storage.join(run, "config.json"))), files, config.checkpoints)
    others = [open_backbone(name, cell=about.stride) for name in config.compare]
    total = len(about.candidates) + 1 + len(others)
    scenes = ProbeScenes(config)
    probed: list[Probed] = []
    for candidate in about.candidates:
        progress(len(probed), total)
        uri = storage.join(run, candidate.file)
        fitted = FittedProbe(load_backbone(uri, candidate.name, about.architecture), config, scenes)
        probed.append(Probed(candidate, fitted, fitted.measure("val")))
    chosen = probed[best([each.result.score for each in probed])]
    tested = [chosen.fitted]
    for other in others:
        progress(len(probed) + len(tested), total)
        tested.append(FittedProbe(other, config, scenes))
    results = [fitted.measure("test") for fitted in tested]
    metrics = {"size": about.size} | _metrics(config, probed, chosen, results)
    metrics["seconds"] = round(time.perf_counter() - began, 3)
    rows = probe_rows(metrics, provenance(config.model_dump(mode="json"), metrics, checkpoint=name))
    table = paper_table("probe", rows)
    fragment = selection_fragment(config, probed, chosen, results, tested)
    fragment["sections"].append(table.section())
    for suffix, text in (("csv", table.csv()), ("tex", table.latex())):
        storage.write_bytes(storage.join(out, f"table.{suffix}"), text.encode())
    for file, content in (("config", config.model_dump(mode="json")), ("fragment", fragment), ("metrics", metrics)):
        storage.write_bytes(storage.join(out, f"{file}.json"), json.dumps(content, indent=2, allow_nan=False).encode())
    progress(total, total)
    return metrics


def _metrics(
    config: SelectionConfig, probed: Sequence[Probed], chosen: Probed, results: Sequence[ProbeResult]
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
        "printed": {key: _number(value) for key, value in ours.printed.items()},
        "others": [
            {"name": other.backbone, "score": other.score}
            | {"printed": {key: _number(value) for key, value in other.printed.items()}}
            | {"metrics": {key: _interval(estimate) for key, estimate in other.estimates.items()}}
            for other in others
        ],
        "seed": config.seed,
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _interval(estimate: Estimate) -> dict[str, float | None]:
    return {name: _number(getattr(estimate, name)) for name in ("value", "low", "high")}
