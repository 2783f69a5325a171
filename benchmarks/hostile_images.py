"""More than two hundred hostile files through ingest: each must end in a table, for the right reason, in little memory.

    python benchmarks/hostile_images.py [--json]

The files come from tests/curation/images/hostile_files.py; good pictures lie among them and must come out as they do
alone. Beside it the plain method, OpenCV's imdecode as image downloaders call it: how often it gives pixels for files
that are broken, none for whole ones, and turned pictures that stay turned. Prints a table; with --json one object.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/curation/images"))

from hostile_files import KEPT, Hostile, hostile_files
from picture_makers import CORNERS, corners, encode, smooth

from curation.images import Reject, decode
from curation.stages.ingest import IngestConfig, IngestPartition, list_sources

GOOD = {f"good-{seed}.jpg": encode(smooth(1000 + seed), "JPEG") for seed in range(20)}
CONFIG = IngestConfig(min_side_px=64, rows_per_partition=64)


def ingest(files: dict[str, bytes]) -> tuple[dict[str, str], dict[str, dict[str, Any]], float]:
    """End of every source (`kept` or its reason), image rows by source, and the peak of memory in MB over the start."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        before = resident_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        ends: dict[str, str] = {}
        images: dict[str, dict[str, Any]] = {}
        for partition in list_sources(folder, CONFIG).partitions:
            tables = IngestPartition(CONFIG)(partition)
            for row in tables["sources"].to_pylist():
                assert row["source"] not in ends, f"{row['source']} is there twice"
                ends[row["source"]] = KEPT if row["image_id"] else row["reason"]
            images |= {row["source"]: row for row in tables["images"].to_pylist()}
        return ends, images, resident_mb("VmHWM") - before


def resident_mb(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def plain(data: bytes) -> str:
    """What imdecode makes of it: `kept`, `none` or `raised`."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return "raised"
    return "none" if pixels is None else KEPT


def upright(data: bytes) -> bool:
    picture = decode(data)
    return not isinstance(picture, Reject) and close(corners(picture.pixels))


def plainly_upright(data: bytes) -> bool:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels is not None and close(corners(np.ascontiguousarray(pixels[..., 2::-1])))


def close(found: list[tuple[int, ...]]) -> bool:
    return bool(np.abs(np.array(found) - np.array(CORNERS)).max() < 40)


def measure(files: list[Hostile]) -> dict[str, Any]:
    """Everything the table shows."""
    start = time.monotonic()
    ends, images, peak_mb = ingest({**{file.name: file.data for file in files}, **GOOD})
    seconds = time.monotonic() - start
    alone = ingest(GOOD)[1]
    turned = [f for f in files if re.fullmatch(r"orientation-[1-8]\..*", f.name)]
    ended = [(f, ends.get(f.name, "nowhere")) for f in files]
    wrong = [f"{f.name!r} ended as {end}, not as {sorted(f.ends)}" for f, end in ended if end not in f.ends]
    return {
        "files": len(files),
        "listed": len(ends) - len(GOOD),
        "wrong": wrong,
        "good_unchanged": {name: images.get(name) for name in GOOD} == alone,
        "peak_mb": round(peak_mb),
        "seconds": round(seconds, 1),
        "upright": [sum(upright(f.data) for f in turned), len(turned)],
        "plainly_upright": [sum(plainly_upright(f.data) for f in turned), len(turned)],
        "families": families(files, ends),
    }


def families(files: list[Hostile], ends: dict[str, str]) -> list[dict[str, Any]]:
    rows = []
    for family in dict.fromkeys(file.family for file in files):
        ours = [file for file in files if file.family == family]
        reasons = Counter(ends.get(file.name, "nowhere") for file in ours)
        # 900 megapixels are left out for the plain method: it would allocate them
        easy = [(file, plain(file.data)) for file in ours if file.family != "bombs"]
        pixels = sum(end == KEPT and KEPT not in file.ends for file, end in easy)
        lost = sum(end != KEPT and file.ends == {KEPT} for file, end in easy)
        rows.append(
            {
                "family": family,
                "files": len(ours),
                "right": sum(ends.get(file.name) in file.ends for file in ours),
                "ends": dict(reasons.most_common()),
                "plain_pixels_of_broken": pixels if easy else None,
                "plain_lost_whole": lost if easy else None,
            }
        )
    return rows


def shown(result: dict[str, Any]) -> str:
    lines = ["| family | files | right end | ends | imdecode: pixels of broken files | imdecode: whole files lost |"]
    lines.append("|---|---|---|---|---|---|")
    for row in result["families"]:
        ends = ", ".join(f"{reason} {count}" for reason, count in row["ends"].items())
        cells = [row[key] for key in ("family", "files", "right")] + [ends]
        cells += [row[key] for key in ("plain_pixels_of_broken", "plain_lost_whole")]
        lines.append("| " + " | ".join("not tried" if cell is None else str(cell) for cell in cells) + " |")
    ours, theirs = result["upright"], result["plainly_upright"]
    lines += [
        "",
        f"{result['files']} files in {result['seconds']} s; memory at its peak {result['peak_mb']} MB over the start; "
        f"good pictures among them unchanged: {'yes' if result['good_unchanged'] else 'NO'}.",
        f"Turned by EXIF and shown upright: {ours[0]} of {ours[1]}; imdecode {theirs[0]} of {theirs[1]}.",
        *result["wrong"],
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    cv2.utils.logging.setLogLevel(0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the table")
    result = measure(hostile_files())
    print(json.dumps(result, default=repr) if parser.parse_args().json else shown(result))
