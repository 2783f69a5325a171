"""What a picture costs on one core: ingest, detect, score and export of a pool of real pictures, by profile.

Works in this process and counts its own time (user and system), which other load on the machine does not lengthen
much. `small` needs its networks (SAPIENS2_MODELS). Prints a table, and JSON as the last line:

    python benchmarks/curation_rates.py --pool FOLDER --pictures 64
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import pyarrow as pa

from components.artifacts import parquet_bytes
from curation.images import decode
from curation.models.weights import find
from curation.stages import detect, score
from curation.stages.ingest import IngestConfig, IngestPartition, Partition, list_sources


def timed(work: Any) -> tuple[Any, float]:
    """What the work gives, and the process's own seconds."""
    began = time.process_time()
    return work(), time.process_time() - began


def main() -> None:
    """Every stage once over the same pictures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pool", required=True)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--profiles", nargs="+", default=["builtin", "small"])
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    config = IngestConfig(rows_per_partition=1_000_000, bytes_per_partition=1 << 50)
    items = [item for part in list_sources(arguments.pool, config).partitions for item in part.items]
    partition = Partition("all", items[:: max(1, len(items) // arguments.pictures)][: arguments.pictures])
    ingested, seconds = timed(lambda: IngestPartition(config)(partition))
    images: pa.Table = ingested["images"]
    n, sources = images.num_rows, ingested["sources"].num_rows
    encoded = sum(images["n_bytes"].to_pylist())
    found: dict[str, Any] = {"pictures": n, "image_bytes": encoded / n, "ingest": {"seconds": seconds / sources}}
    _, seconds = timed(lambda: [decode(data, min_side=768) for data in images["bytes"].to_pylist()])
    found["decode"] = {"seconds": seconds / n}
    sides = zip(images["width"].to_pylist(), images["height"].to_pylist(), strict=True)
    found["pixels"] = sum(width * height for width, height in sides) / n
    for profile in arguments.profiles:
        boxes, scored = detect.profile_config(profile), score.profile_config(profile)
        stages = {}
        for name, stage, chosen in (("detect", detect, boxes), ("score", score, scored)):
            weights = {spec.name: str(find(spec)) for spec in stage.required_weights(chosen)}
            stages[name] = getattr(stage, f"{name.capitalize()}Partition")(chosen, weights)
        detections, seconds = timed(lambda s=stages["detect"]: s(images).tables["data"])
        found[f"detect {profile}"] = {"seconds": seconds / n, "bytes": len(parquet_bytes(detections)) / n}
        result, seconds = timed(lambda s=stages["score"], d=detections: s(images, d))
        passed = sum(result.tables["data"]["scored"].to_pylist())
        row = {
            "seconds": seconds / n,
            "bytes": len(parquet_bytes(result.tables["data"])) / n,
            "passed_gate": passed / n,
        }
        found[f"score {profile}"] = row
    data, seconds = timed(lambda: parquet_bytes(images, 64))
    found["export"] = {"seconds": seconds / n, "bytes": len(data) / n}
    for name, row in found.items():
        print(name, row if not isinstance(row, dict) else {k: round(v, 5) for k, v in row.items()})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
