"""Does pretraining learn? Masked reconstruction of held-out photographs against two predictors that know nothing.

A nano backbone learns from a pool of photographs with the whole objective, two cores, within half an hour, in bfloat16
where the processor has instructions for it, else in fp32.
Held-out pictures share no duplicate group with the others. On their masks, the same for all:

    zero         answers each hidden patch's mean: about 1 by construction
    blur fill    a normalised Gaussian of the visible pixels, its width and its shrinkage chosen on training pictures

Stated beforehand: a held-out loss below 0.75 and below blur fill (paired bootstrap over pictures); mutual information
between picture and prototype above 0.5 nats over the last fifth of the run, and never below half of that there; over
the run, its warm-up left out, no term's gradient norm above ten times that of every other.

    python benchmarks/learning.py --pool POOL        # a folder with manifest.jsonl and images/, as acceptance has one
    python benchmarks/learning.py --pool POOL --short

The short form, a few minutes, is for finding out whether something broke. 240 steps do not pass the blur, and mutual
information only begins to rise, in some runs later than in others: it asks for a held-out loss below 0.90 and below the
zero predictor's, 0.05 nats (ten times what there is at step 60), and of the gradients that the tenfold is kept in the
median (single steps of a young contrast reach fourteen times).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sapiens2.engine.arithmetic import faster
from sapiens2.evaluation.ablation.arms import changed
from sapiens2.evaluation.ablation.comparison import interval
from sapiens2.model.backbone import patchify
from sapiens2.model.normalise import normalise
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.decoder import complement, take
from sapiens2.pretrain.held_out import held_out_batches
from sapiens2.pretrain.losses import normalised_targets
from sapiens2.pretrain.recipes import nano
from sapiens2.pretrain.run import pretrain

PHOTOGRAPHS = {"photo_person", "photo_no_person", "text_overlay"}
HELD_OUT_SHARE = 5  # one group in so many
STORED_SIDE_PX = 256
SIGMAS = (1.5, 2.0, 3.0, 4.0, 6.0)  # pixels of a view
STEPS, MAE_GOAL = {"full": 2000, "short": 240}, {"full": 0.75, "short": 0.90}
INFORMATION_FLOOR, DROWNED = {"full": 0.5, "short": 0.05}, 10.0

Batch = dict[str, Tensor]


def config(steps: int, threads: int = 0) -> PretrainConfig:
    """The run, with the gradient of each term measured about every 20 steps: it takes the time of two.

    With `threads` it computes on so many and prepares batches in line: faster as long as nothing else runs.
    """
    base = nano(steps)
    every = base.engine.log_every
    measured: dict[str, object] = {"term_norms_every": every * max(1, round(20 / every)), "precision": faster()}
    return changed(base, engine=measured | ({"threads": threads, "prefetch": 0} if threads else {}))


# ---- pictures ----


def shards(pool: Path, out: Path) -> dict[str, str]:
    """Train and held-out photographs of a labelled pool, split by duplicate group, at most 256 pixels across."""
    rows: dict[str, list[dict[str, object]]] = {"train": [], "val": []}
    seen = set()
    for line in (pool / "manifest.jsonl").read_text().splitlines():
        about = json.loads(line)
        if missing := {"file", "kind", "dup_group"} - set(about):
            raise SystemExit(f"{pool / 'manifest.jsonl'}: a line without {', '.join(sorted(missing))}: not such a pool")
        group = about["dup_group"] or about["file"]
        data = (pool / about["file"]).read_bytes() if about["kind"] in PHOTOGRAPHS else b""
        image_id = hashlib.sha256(data).hexdigest()[:32]
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if picture is None or image_id in seen:
            continue
        seen.add(image_id)
        held_out = int(hashlib.sha256(group.encode()).hexdigest(), 16) % HELD_OUT_SHARE == 0
        rows["val" if held_out else "train"].append(_row(image_id, picture))
    files = {}
    for split, own in rows.items():
        files[split] = str(out / f"{split}.parquet")
        pq.write_table(pa.Table.from_pylist(own), files[split], row_group_size=32)
    return files


def _row(image_id: str, picture: np.ndarray) -> dict[str, object]:
    scale = STORED_SIDE_PX / min(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    return {"image_id": image_id, "bytes": data, "width": picture.shape[1], "height": picture.shape[0]}


# ---- the predictor that only blurs ----


class BlurFill:
    """Hidden patches from a normalised Gaussian of the visible pixels, shrunk: the best of its kind on `files`."""

    def __init__(self, files: list[str], settings: PretrainConfig) -> None:
        self.config = settings
        batches = list(held_out_batches(files, settings))
        fits = {sigma: self._fit(batches, sigma) for sigma in SIGMAS}
        self.sigma = min(fits, key=lambda sigma: fits[sigma][1])
        self.shrink = fits[self.sigma][0]

    def _fit(self, batches: list[Batch], sigma: float) -> tuple[float, float]:
        """Least-squares factor on the guess, and the error that it leaves."""
        guess_guess = guess_truth = truth_truth = 0.0
        for guess, truth in (self._pair(batch, sigma) for batch in batches):
            guess_guess += float(guess.square().sum())
            guess_truth += float((guess * truth).sum())
            truth_truth += float(truth.square().sum())
        return guess_truth / guess_guess, truth_truth - guess_truth**2 / guess_guess

    def errors(self, batches: list[Batch]) -> np.ndarray:
        """Mean squared error of each picture over both global views, in the units of the reconstruction loss."""
        found = []
        for batch in batches:
            guess, truth = self._pair(batch, self.sigma)
            found.append((self.shrink * guess - truth).square().mean((1, 2)).unflatten(0, (-1, 2)).mean(1))
        return torch.cat(found).numpy().astype(np.float64)

    def _pair(self, batch: Batch, sigma: float) -> tuple[Tensor, Tensor]:
        """Normalised guesses and truths of the hidden patches [2 B, hidden, pixels]."""
        settings, images = self.config, normalise(batch["globals"].flatten(0, 1))
        kept, patch = batch["kept"].flatten(0, 1), settings.target_patch
        visible = torch.zeros(len(images), settings.tokens).scatter(1, kept, 1.0).unflatten(1, settings.grid)
        mask = visible.repeat_interleave(patch, 1).repeat_interleave(patch, 2).numpy()
        filled = torch.from_numpy(np.stack([_fill(i, m, sigma) for i, m in zip(images.numpy(), mask)]))
        masked = complement(kept, settings.tokens)
        guess, truth = (normalised_targets(take(patchify(x, patch), masked))[0] for x in (filled, images))
        return guess, truth


def _fill(image: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    """[3, H, W] and [H, W] of 0 and 1 -> the mean of the visible pixels around each, weighted by a Gaussian."""
    blur = lambda x: cv2.GaussianBlur(x.astype(np.float64), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)  # noqa: E731
    weight = np.maximum(blur(mask), 1e-12)
    return np.stack([blur(channel * mask) / weight for channel in image]).astype(np.float32)


# ---- the proof ----


def facts(history: list[dict[str, float]], warmup: int) -> dict[str, float]:
    """Mutual information at the end, and how far, after the warm-up, the loudest term's gradient is above the next."""
    last = [row["mutual_information"] for row in history[-max(1, len(history) // 5) :]]
    terms = ("grad_norm_mae", "grad_norm_contrastive", "grad_norm_koleo")
    norms = [sorted(row[t] for t in terms) for row in history if row["step"] > warmup and all(t in row for t in terms)]
    ratios = [n[-1] / n[-2] for n in norms] or [float("nan")]
    return {
        "mutual_information_last_fifth": float(np.mean(last)),
        "mutual_information_lowest_there": float(np.min(last)),
        "loudest_over_next": float(np.max(ratios)),
        "loudest_over_next_median": float(np.median(ratios)),
    }


def prove(files: dict[str, str], settings: PretrainConfig, out: Path) -> dict[str, object]:
    """Train, then measure the held-out pictures: ours, blur fill, zero; with paired intervals."""
    began = time.monotonic()
    where = {"out": str(out / "out"), "state": str(out / "state")}
    metrics = pretrain(settings, train_files=[files["train"]], val_files=[files["val"]], **where)
    history = [json.loads(line) for line in (out / "out/history.jsonl").read_text().splitlines()]
    ours = np.array(json.loads((out / "out/held_out.json").read_text())["mae"])
    blur = BlurFill([files["train"]], settings)
    theirs = blur.errors(list(held_out_batches([files["val"]], settings)))
    value, low, high = interval((ours - theirs)[None])
    zero = interval(ours[None] - 1)
    return {
        "held_out_mae": float(ours.mean()),
        "held_out_mae_interval": metrics["held_out_mae_interval"],
        "blur_fill": float(theirs.mean()),
        "blur_fill_sigma_px": blur.sigma,
        "ours_minus_blur_fill": [value, low, high],
        "ours_minus_zero": list(zero),
        "held_out_pictures": len(ours),
        "training_pictures": metrics["pictures"],
        "steps": settings.engine.steps,
        "arithmetic": settings.engine.precision,
        **facts(history, settings.engine.warmup_steps),
        "seconds": time.monotonic() - began,
    }


def verdicts(told: dict[str, object], form: str) -> dict[str, bool]:
    """What was stated beforehand, and whether it came true."""
    mean, lowest = told["mutual_information_last_fifth"], told["mutual_information_lowest_there"]
    rival, floor = "zero" if form == "short" else "blur_fill", INFORMATION_FLOOR[form]
    ratio = told["loudest_over_next_median" if form == "short" else "loudest_over_next"]
    return {
        f"held-out loss below {MAE_GOAL[form]}": told["held_out_mae"] < MAE_GOAL[form],  # type: ignore[operator]
        f"below {rival.replace('_', ' ')}, interval included": told[f"ours_minus_{rival}"][2] < 0,  # type: ignore[index]
        f"mutual information above {floor} nats, and stays": mean > floor and lowest > floor / 2,  # type: ignore[operator]
        f"no term's gradient above {DROWNED:g} times the next": ratio < DROWNED,  # type: ignore[operator]
    }


def main() -> None:
    """Trains, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True, help="A labelled pool: manifest.jsonl beside images/.")
    parser.add_argument("--short", action="store_true", help="A few minutes, and what can be asked of them.")
    parser.add_argument("--steps", type=int, help=f"Default {STEPS['full']}, with --short {STEPS['short']}.")
    parser.add_argument("--threads", type=int, default=0, help="All cores of a quiet machine; default all but one.")
    parser.add_argument("--out", type=Path, help="Keep the run here and continue it; default a temporary folder.")
    given = parser.parse_args()
    form = "short" if given.short else "full"
    with tempfile.TemporaryDirectory(prefix="learning-") as scratch:
        out = given.out or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        told = prove(shards(given.pool, out), config(given.steps or STEPS[form], given.threads), out)
    for name, value in told.items():
        print(f"{name:34} {value}")
    came_true = verdicts(told, form)
    for name, true in came_true.items():
        print(f"{'yes' if true else 'NO ':4}{name}")
    print(json.dumps({"benchmark": "learning", **told, "verdicts": came_true}))


if __name__ == "__main__":
    main()
