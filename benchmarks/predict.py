"""Forward passes of ours beside the `transformers` port's, with the same weights, in turns, on this machine's CPU.

    python benchmarks/predict.py [--size 0.1b] [--image-size 256 192] [--rounds 9] [--threads 1]

Both sides run eager and compiled, batch 1 and 8, backbone alone and with each head that the port has, points at 1024 x
768 pixels alone. Before anything is timed the outputs are held to agree. With one thread processor time counts, which
other programs on the machine disturb least, else wall time. A ratio above 1 says that ours is faster; the median of
paired rounds counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.models.sapiens2 import Sapiens2Config
from transformers.models.sapiens2 import modeling_sapiens2 as port

from sapiens2.model.backbone import build_backbone
from sapiens2.model.heads import PointmapHead
from sapiens2.model.sizes import architecture
from sapiens2.model.transformers_heads import to_transformers_task
from sapiens2.model.transformers_names import to_transformers
from sapiens2.tasks.build import SPECS, build_task

TASKS = {
    "pose": (port.Sapiens2ForPoseEstimation, 308, False),
    "segmentation": (port.Sapiens2ForSemanticSegmentation, 29, False),
    "normal": (port.Sapiens2ForNormalEstimation, 3, True),
    "pointmap": (port.Sapiens2ForPointmapEstimation, 3, True),
}
POINTS_AT = (1024, 768)  # height and width; the released scale branch takes no other
Answer = tuple[Tensor, ...]
TOLERANCE = 1e-4  # relative to the largest output: a wrong weight is off by far more


def port_config(size: str, **more: Any) -> Sapiens2Config:
    arch = architecture(size)
    return Sapiens2Config(
        hidden_size=arch.dim,
        intermediate_size=arch.hidden,
        num_hidden_layers=arch.layers,
        num_attention_heads=arch.heads,
        num_key_value_attention_heads=arch.heads // 2,
        num_key_value_heads_per_layer=[arch.kv_heads(i) for i in range(arch.layers)],
        **more,
    )


def backbones(size: str) -> tuple[Callable[[Tensor], Answer], Callable[[Tensor], Answer]]:
    """Ours and theirs as functions from images to patch tokens."""
    ours = build_backbone(size).eval()
    theirs = port.Sapiens2Model(port_config(size)).eval()
    theirs.load_state_dict(to_transformers(ours.state_dict()), strict=True)
    return lambda x: (ours(x).patches.flatten(2).mT,), lambda x: (theirs(x).last_hidden_state[:, ours.prefix :],)


def tasks(task: str, size: str) -> tuple[Callable[[Tensor], Answer], Callable[[Tensor], Answer]]:
    """Ours and theirs as functions from images to the head's output; for points also the scale."""
    kind, labels, shuffle = TASKS[task]
    spec = SPECS[task][size]
    head = {
        "upsample_out_channels": list(spec.ups),
        "upsample_kernel_size": 3 if shuffle else 4,
        "conv_out_channels": list(spec.convs),
        "conv_kernel_size": 3 if shuffle else 1,
        "use_pixel_shuffle": shuffle,
    }
    ours = build_task(task, size)  # type: ignore[arg-type]
    if task == "pointmap":
        scale = SPECS[task]["0.4b"]  # that of 0.1b is ours alone: with the released one both sides have the same
        head |= {"scale_conv_out_channels": list(scale.scale_convs)}
        head |= {"scale_final_hidden_sizes": list(scale.scale_hidden)}
        widths = (spec.ups, spec.convs, scale.scale_convs, scale.scale_hidden)
        ours.decode_head = PointmapHead(architecture(size).dim, *widths, pooled=False)
    ours.eval()
    with torch.no_grad():
        for parameter in ours.decode_head.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    theirs = kind(port_config(size, head_config=head, num_labels=labels, image_size=POINTS_AT)).eval()
    theirs.load_state_dict(to_transformers_task(ours.state_dict()), strict=True)

    def own(x: Tensor) -> Answer:
        return tuple(ours(x).values())

    def ported(x: Tensor) -> Answer:
        out = theirs(x)
        if task == "pointmap":
            return out.pointmaps, out.scales.squeeze(-1)
        return (out.heatmaps if task == "pose" else out.logits if task == "segmentation" else out[0],)

    return own, ported


def in_turns(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[float, float, float]:
    """Median milliseconds of each, and the median of their ratios, theirs over ours; the order alternates."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            began = clock()
            (ours, theirs)[side]()
            taken[side].append(1e3 * (clock() - began))
    ratio = statistics.median(b / a for a, b in zip(*taken))
    return statistics.median(taken[0]), statistics.median(taken[1]), ratio


@torch.inference_mode()
def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for name in args.models:
        torch.manual_seed(0)
        pair = backbones(args.size) if name == "backbone" else tasks(name, args.size)
        for mode in args.modes:
            torch._dynamo.reset()
            ours, theirs = pair if mode == "eager" else tuple(torch.compile(f, dynamic=False) for f in pair)
            for batch in args.batches:
                x = torch.randn(batch, 3, *args.image_size)
                pairs = zip(ours(x), theirs(x), strict=True)
                error = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
                assert error <= TOLERANCE, f"{name}: outputs differ by {error:.1e}"
                ms, port_ms, ratio = in_turns(partial(ours, x), partial(theirs, x), args.rounds)
                row = {"model": name, "mode": mode, "batch": batch, "ours_ms": ms, "port_ms": port_ms, "ratio": ratio}
                print(" ".join(f"{v:.3f}" if isinstance(v, float) else f"{v:>12}" for v in row.values()), flush=True)
                rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="0.1b", choices=sorted(SPECS["pose"]))
    parser.add_argument("--image-size", nargs=2, type=int, default=(256, 192))
    parser.add_argument("--models", nargs="+", choices=["backbone", *TASKS], help="all that take this size, by default")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--modes", nargs="+", default=["eager", "compiled"], choices=["eager", "compiled"])
    args = parser.parse_args()
    args.image_size = tuple(args.image_size)
    if "pointmap" in (args.models or []) and args.image_size != POINTS_AT:
        parser.error(f"pointmap takes {POINTS_AT[0]} x {POINTS_AT[1]} pixels alone: add --image-size 1024 768")
    args.models = args.models or ["backbone", *(t for t in TASKS if t != "pointmap" or args.image_size == POINTS_AT)]
    torch.set_num_threads(args.threads)
    rows = measure(args)
    print(json.dumps({"least_ratio": round(min(row["ratio"] for row in rows), 3), "rows": len(rows)}))


if __name__ == "__main__":
    main()
