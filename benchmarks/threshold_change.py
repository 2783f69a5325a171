"""A changed threshold: no model is called, and it takes a small part of the first run's time.

Curates a folder of pictures in this process, then again under the same root with another `filter.min_person_px`, and
again with a looser gate of the scores, which measures only the pictures that the old gate held back. Seconds are the
process's own, of whole calls: planning, every step, its report. Prints a table; the last line is JSON:

    python benchmarks/threshold_change.py --pool ../shared/data/pool/images
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from components import Store, curate

ALONE = dict.fromkeys(("ingest.workers", "detect.workers", "score.workers", "export.workers"), 0)
TARGET = 0.05
LOOSER = {"score.gate_min_person_px": 192}


def run(pool: Path, root: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Own seconds, model calls and steps of one call, of the versions that it made."""
    before = {repr(artifact) for artifact in Store(str(root)).all()}
    began = time.process_time()
    made = curate(str(pool), str(root), profile="builtin", overrides=ALONE | changes).artifacts
    seconds = time.process_time() - began
    new = {name: artifact for name, artifact in made.items() if repr(artifact) not in before}
    calls = {
        name: sum(artifact.manifest.metrics["model_calls"].values())
        for name, artifact in new.items()
        if "model_calls" in artifact.manifest.metrics
    }
    kept = made["balance"].manifest.metrics["kept"]
    return {"seconds": round(seconds, 2), "model_calls": calls, "steps": list(new), "selected": kept}


def main() -> None:
    """The first run, a threshold, a gate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pool", type=Path, required=True, help="a folder of pictures")
    parser.add_argument("--min-person-px", type=int, default=300, help="the changed threshold of filter")
    arguments = parser.parse_args()
    ways: dict[str, dict[str, Any]] = {
        "first": {},
        "threshold": {"filter.min_person_px": arguments.min_person_px},
        "looser gate": LOOSER,
    }
    with tempfile.TemporaryDirectory(prefix="threshold-") as name:
        found = {way: run(arguments.pool.resolve(), Path(name) / "root", changes) for way, changes in ways.items()}
    for way, told in found.items():
        share = told["seconds"] / found["first"]["seconds"]
        calls = ", ".join(f"{step} {count}" for step, count in told["model_calls"].items()) or "none"
        print(f"{way:<12}{told['seconds']:>9.2f} s {share:>7.1%}  model calls: {calls}; selected {told['selected']}")
        print(f"{'':<12}steps that ran: {', '.join(told['steps'])}")
    share = found["threshold"]["seconds"] / found["first"]["seconds"]
    met = share < TARGET and not any(found["threshold"]["model_calls"].values())
    print(json.dumps({"benchmark": "threshold_change", "runs": found, "share": round(share, 4), "meets": met}))
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
