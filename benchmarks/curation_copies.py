"""At which thresholds copies are found and strangers are not: about 5,000 generated copies, 20,000 hard negatives.

Copies: 14 ways of the web to change a picture (benchmarks/copy_pairs.py), of the photographs of a labelled pool and of
synthetic scenes. Hard negatives: one synthetic person in one place in another pose; for every original its nearest
neighbours of other groups; for every copy the two nearest originals that it was not made from; the left and the right
half of one photograph. Thresholds are chosen on the half of the pool that its manifest calls `fit` and reported on
`measure`, with Wilson intervals; precision is that of the mix, one copy to four hard negatives, which a pool is not.

    python benchmarks/curation_copies.py --pool ../shared/data/pool
    python benchmarks/curation_copies.py --pool ../shared/data/pool --descriptor mobilenet --weights FILE.onnx

Prints tables; the last line is JSON. About 15 minutes on one core.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from copy_pairs import ATTACKS, attacked, encoded, posed
from numpy.typing import NDArray
from PIL import Image as pillow

from curation.audit.intervals import wilson
from curation.dedup.features import unit_rows
from curation.dedup.geometry import Alignment, Sketch, align, sketch
from curation.images import Header, Image, decode, read_header
from curation.images.decode import decode_grey
from curation.images.phash import MIN_SIDE_PX, hashes, thumbnail
from curation.models.copy_descriptor import CopyDescriptor, build_copy_descriptor
from curation.stages.dedup import DedupConfig

PHOTOGRAPHS = ("photo_person", "photo_no_person")
MIN_PHOTO_PX = 160
WRONG = 2
LOOSEST = 0.30  # cosine from which pictures are compared, whatever is chosen later
TARGET = 0.99  # lower bound of the precision that a threshold must reach on `fit`
COSINES = [round(t, 2) for t in np.arange(0.30, 0.96, 0.05)]


@dataclass
class Known:
    """One picture as dedup sees it."""

    phash: int
    mirror: int
    trusted: bool
    vector: NDArray[np.float32]
    sketch: Sketch | None
    split: str
    group: str


@dataclass
class Pairs:
    """What was measured of pairs; one entry each."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, a: Known, b: Known, cosine: float, *, copy: bool, kind: str, split: str) -> None:
        """Measure a pair; pictures are compared where any threshold could ask for it."""
        near = int(a.phash ^ b.phash).bit_count() if a.trusted and b.trusted else 64
        across = min(int(a.phash ^ b.mirror).bit_count(), int(a.mirror ^ b.phash).bit_count())
        across = across if a.trusted and b.trusted else 64
        seen = Alignment()
        if a.sketch is not None and b.sketch is not None and (min(near, across) <= 8 or cosine >= LOOSEST):
            seen = align(a.sketch, b.sketch)
        row = {"copy": copy, "kind": kind, "split": split, "near": near, "across": across, "cosine": cosine}
        self.rows.append(row | {"agreement": seen.agreement, "correlation": seen.correlation})

    def columns(self, split: str) -> dict[str, NDArray[Any]]:
        """The entries of a split, as arrays by name."""
        rows = [row for row in self.rows if row["split"] == split]
        return {name: np.array([row[name] for row in rows]) for name in self.rows[0]}


def known(data: bytes, descriptor: CopyDescriptor, split: str, group: str) -> Known | None:
    """None for what does not decode."""
    header, image = read_header(data), decode(data, min_side=320)
    if not isinstance(header, Header) or not isinstance(image, Image):
        return None
    grey = decode_grey(data, header, min_side=MIN_SIDE_PX)
    code, mirror, quality = hashes(thumbnail(np.asarray(grey))[None])
    vector = descriptor.embed([image.pixels])[0]
    trusted = bool(quality[0] >= DedupConfig().min_hash_quality)
    return Known(int(code[0]), int(mirror[0]), trusted, vector, sketch(image.pixels), split, group)


def originals(pool: Path, scenes: int, poses: int) -> Iterator[tuple[bytes, str, str, bool]]:
    """(file, split, group, whether copies are made of it): the pool's own pictures, then synthetic scenes."""
    for line in (pool / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        if not row["synthetic"] and row["kind"] != "corrupt":
            large = min(row["width"] or 0, row["height"] or 0) >= MIN_PHOTO_PX
            group = row["dup_group"] or row["file"]
            yield (pool / row["file"]).read_bytes(), row["split"], group, large and row["kind"] in PHOTOGRAPHS
    for scene in range(scenes):
        for pose in range(poses):
            split = "fit" if scene % 2 else "measure"
            yield encoded(posed(scene, pose), 92), split, f"scene {scene}, pose {pose}", pose == 0


def gather(arguments: argparse.Namespace, descriptor: CopyDescriptor, centre: bool) -> Pairs:
    """Every pair that is judged, measured."""
    bases: list[Known] = []
    sources: dict[int, bytes] = {}
    for data, split, group, copied in originals(arguments.pool, arguments.scenes, arguments.poses):
        base = known(data, descriptor, split, group)
        if base is not None:
            if copied:
                sources[len(bases)] = data
            bases.append(base)
    vectors = np.stack([base.vector for base in bases])
    mean = unit_rows(vectors).mean(axis=0) if centre else np.zeros(vectors.shape[1], np.float32)
    unit = unit_rows(unit_rows(vectors) - mean)
    pairs = Pairs()
    _originals_against_each_other(pairs, bases, unit, arguments.neighbours)
    groups, splits = (np.array([getattr(base, name) for base in bases]) for name in ("group", "split"))
    for done, (row, data) in enumerate(list(sources.items())[:: arguments.every], 1):
        base = bases[row]
        picture = pillow.open(io.BytesIO(data)).convert("RGB")
        half = picture.width // 2
        halves = [known(encoded(picture.crop(box)), descriptor, base.split, "half") for box in _halves(picture, half)]
        if halves[0] and halves[1]:
            two = unit_rows(unit_rows(np.stack([h.vector for h in halves if h])) - mean)
            pairs.add(
                halves[0], halves[1], float(two[0] @ two[1]), copy=False, kind="halves of one photograph",
                split=base.split,
            )  # fmt: skip
        for name in ATTACKS:
            made = known(attacked(picture, name, base.group), descriptor, base.split, base.group)
            if made is None:
                continue
            cosines = unit @ unit_rows(unit_rows(made.vector[None]) - mean)[0]
            pairs.add(base, made, float(cosines[row]), copy=True, kind=name, split=base.split)
            others = np.flatnonzero((groups != base.group) & (splits == base.split))
            for other in others[np.argsort(-cosines[others])[:WRONG]]:
                pairs.add(
                    bases[other], made, float(cosines[other]), copy=False, kind="copy and another original",
                    split=base.split,
                )  # fmt: skip
        if done % 50 == 0:
            print(f"{done} of {len(sources)} originals copied", file=sys.stderr, flush=True)
    return pairs


def _halves(picture: pillow.Image, half: int) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    return (0, 0, half, picture.height), (half, 0, picture.width, picture.height)


def _originals_against_each_other(pairs: Pairs, bases: list[Known], unit: NDArray[np.float32], neighbours: int) -> None:
    """Nearest neighbours of other groups, and the poses of one scene; both pictures of one split."""
    groups, splits = (np.array([getattr(base, name) for base in bases]) for name in ("group", "split"))
    scene = np.array([group.partition(", pose")[0] if group.startswith("scene ") else "" for group in groups])
    cosines = unit @ unit.T
    seen: set[tuple[int, int]] = set()
    for row in range(len(bases)):
        same = np.flatnonzero((scene == scene[row]) & (groups != groups[row]) & (scene != ""))
        apart = (groups != groups[row]) & ((scene != scene[row]) | (scene == ""))
        strangers = np.flatnonzero(apart & (splits == splits[row]))
        near = strangers[np.argsort(-cosines[row, strangers])[:neighbours]]
        for kind, found in (("one person, another pose", same), ("nearest neighbours", near)):
            if kind == "nearest neighbours" and scene[row] and not groups[row].endswith("pose 0"):
                continue
            for other in found.tolist():
                pair = (min(row, other), max(row, other))
                if pair not in seen:
                    seen.add(pair)
                    split = bases[pair[0]].split
                    pairs.add(
                        bases[pair[0]], bases[pair[1]], float(cosines[pair]), copy=False, kind=kind, split=split
                    )  # fmt: skip


# --- what the numbers say ---------------------------------------------------------------------------------------------


def judged(columns: dict[str, NDArray[Any]], merged: NDArray[np.bool_]) -> dict[str, float]:
    """Recall and precision of a rule, with 95 % Wilson bounds, and its false merges."""
    copies = columns["copy"].astype(bool)
    hits, false = int((merged & copies).sum()), int((merged & ~copies).sum())
    return {
        "hits": hits,
        "copies": int(copies.sum()),
        "recall": hits / max(int(copies.sum()), 1),
        "false": false,
        "negatives": int((~copies).sum()),
        "precision": hits / max(hits + false, 1),
        "precision_low": wilson(hits, hits + false)[0],
        "false_high": wilson(false, int((~copies).sum()))[1],
    }


def rule(c: dict[str, NDArray[Any]], config: DedupConfig) -> NDArray[np.bool_]:
    """What dedup merges with these thresholds (curation.dedup.evidence), pair by pair."""
    hashed = np.minimum(c["near"], c["across"]) <= config.hash_candidate_radius
    certain = (c["near"] <= config.hash_radius) | (c["cosine"] >= config.min_cosine)
    certain |= hashed & (c["cosine"] >= config.hash_confirm_cosine)
    asked = hashed | (c["cosine"] >= config.candidate_cosine)
    agrees = (c["agreement"] >= config.min_agreement) & (c["correlation"] >= config.min_correlation)
    return certain | (asked & agrees)


def lowest(columns: dict[str, NDArray[Any]], value: str, grid: list[float], among: NDArray[np.bool_]) -> float | None:
    """The lowest threshold at which the pairs `among` that reach it are copies, as the lower bound says."""
    good = [t for t in grid if judged(columns, among & (columns[value] >= t))["precision_low"] >= TARGET]
    return min(good) if good else None


def widest(columns: dict[str, NDArray[Any]], value: str, among: NDArray[np.bool_] | None = None) -> int | None:
    """The largest hash distance up to which pairs are copies, as the lower bound says."""
    inside = np.ones(len(columns["copy"]), bool) if among is None else among
    good = [r for r in range(0, 13) if judged(columns, inside & (columns[value] <= r))["precision_low"] >= TARGET]
    return max(good) if good else None


def chosen(fit: dict[str, NDArray[Any]], config: DedupConfig) -> dict[str, Any]:
    """Thresholds that reach the target on `fit`, each for the pairs that it decides."""
    everything = np.ones(len(fit["copy"]), bool)
    fine = [round(float(t), 2) for t in np.arange(0.20, 1.0, 0.01)]
    weak_hash = (np.minimum(fit["near"], fit["across"]) <= config.hash_candidate_radius) & (
        fit["near"] > config.hash_radius
    )
    undecided = fit["cosine"] < config.min_cosine
    compared = undecided & (fit["cosine"] >= config.candidate_cosine) & (fit["correlation"] >= config.min_correlation)
    return {
        "hash_radius": widest(fit, "near"),
        "min_cosine": lowest(fit, "cosine", fine, everything),
        "hash_confirm_cosine": lowest(fit, "cosine", fine, weak_hash),
        "min_agreement": lowest(fit, "agreement", fine, compared),
    }


def table(title: str, rows: list[tuple[str, dict[str, float]]]) -> None:
    """Recall, precision and false merges, a line each."""
    print(f"\n{title}\n{'':28}{'copies found':>20}{'recall':>8}{'false merges':>20}{'precision':>11}{'at least':>10}")
    for name, j in rows:
        found, wrong = f"{j['hits']} of {j['copies']}", f"{j['false']} of {j['negatives']}"
        shares = f"{j['recall']:>8.3f}{wrong:>20}{j['precision']:>11.4f}{j['precision_low']:>10.4f}"
        print(f"{name:<28}{found:>20}{shares}")


def report(pairs: Pairs, config: DedupConfig) -> dict[str, Any]:
    """Every table; what the last line says."""
    fit, measure = pairs.columns("fit"), pairs.columns("measure")
    for split, c in (("fit", fit), ("measure", measure)):
        table(f"{split}: hash within so many bits", [(str(r), judged(c, c["near"] <= r)) for r in range(0, 13, 2)])
        table(f"{split}: mirror hash within", [(str(r), judged(c, c["across"] <= r)) for r in range(0, 13, 2)])
        table(f"{split}: cosine from", [(f"{t:.2f}", judged(c, c["cosine"] >= t)) for t in COSINES])
        weak = (np.minimum(c["near"], c["across"]) <= 8) & (c["near"] > config.hash_radius)
        table(
            f"{split}: hash or mirror hash within 8 bits that does not merge by itself, and a cosine from",
            [(f"{t:.2f}", judged(c, weak & (c["cosine"] >= t))) for t in COSINES],
        )
        asked = (c["cosine"] < config.min_cosine) & (c["cosine"] >= config.candidate_cosine)
        asked &= c["correlation"] >= config.min_correlation
        grid = [0.5, 0.6, 0.7, 0.8, 0.84, 0.87, 0.9, 0.95]
        table(
            f"{split}: compared as pictures (cosine {config.candidate_cosine} to {config.min_cosine}), agreement from",
            [(f"{t:.2f}", judged(c, asked & (c["agreement"] >= t))) for t in grid],
        )
    merged = rule(measure, config)
    kinds = list(dict.fromkeys(measure["kind"].tolist()))
    rows = []
    for kind in kinds:
        one = {name: column[measure["kind"] == kind] for name, column in measure.items()}
        rows.append((kind, judged(one, merged[measure["kind"] == kind])))
    table("measure: all the evidence, thresholds as shipped", [*rows, ("all", judged(measure, merged))])
    best = chosen(fit, config)
    print("\nchosen on fit (lower bound of the precision >= 0.99), and shipped")
    for name, value in best.items():
        print(f"{name:<24}{value!s:>8}{getattr(config, name)!s:>8}")
    whole = {"fit": judged(fit, rule(fit, config)), "measure": judged(measure, merged)}
    return {"pairs": len(pairs.rows), "chosen": best, "shipped": {n: getattr(config, n) for n in best}, **whole}


def main() -> None:
    """Gather, judge, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pool", type=Path, required=True, help="folder with manifest.jsonl and images/")
    parser.add_argument("--descriptor", default="builtin", choices=("builtin", "mobilenet"))
    parser.add_argument("--weights", default="", help="network of the descriptor, where it has one")
    parser.add_argument("--scenes", type=int, default=80, help="synthetic scenes")
    parser.add_argument("--poses", type=int, default=8, help="poses of each")
    parser.add_argument("--neighbours", type=int, default=30, help="of each original, as hard negatives")
    parser.add_argument("--every", type=int, default=1, help="copies are made of every n-th original")
    parser.add_argument("--pairs", type=Path, help="file for the measured pairs, JSON; read instead when it is there")
    arguments = parser.parse_args()
    if arguments.pairs and arguments.pairs.exists():
        told = report(Pairs(json.loads(arguments.pairs.read_text())), DedupConfig())
        print(json.dumps({"benchmark": "curation_copies", **told}))
        return
    weights = {"nsfw_mobilenet_v2": arguments.weights} if arguments.weights else {}
    descriptor = build_copy_descriptor(arguments.descriptor, weights)
    centre = arguments.descriptor == "mobilenet"
    pairs = gather(arguments, descriptor, centre)
    if arguments.pairs:
        arguments.pairs.write_text(json.dumps(pairs.rows))
    told = report(pairs, DedupConfig())
    print(json.dumps({"benchmark": "curation_copies", "descriptor": arguments.descriptor, **told}))


if __name__ == "__main__":
    main()
