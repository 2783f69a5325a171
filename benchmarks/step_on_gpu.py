"""The GPU half of `pretrain_step.py`: img/s, MFU and peak memory of whole steps in bfloat16.

A case is size:batch:mode[:side]. mode: "eager", or "compiled" (per block), each with "+elementwise", "+selective" or
"+full" for activation checkpointing (ours alone). side: "ours" (default), "straightforward" or "both". Steady steps of
ours run under `set_sync_debug_mode("error")`: one that waits for the device fails. A case that is in `--out` is not run
again, and one that runs out of memory says so. `--warm` compiles what the cases need, on three blocks that are of all
kinds, and measures nothing: several such processes fill the compiler's cache together, before the table is made.
`--profile` writes the kernels of one more step, by time, to a file beside `--out`.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from sapiens2.model import sizes
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.cost import step_cost
from sapiens2.pretrain.recipes import paper

PEAK = 989e12  # dense bfloat16 FLOP/s of an H100 or H200
TARGET_MFU = {"0.1b": 0.33, "0.4b": 0.40, "0.8b": 0.42, "1b": 0.45, "5b": 0.38}
CASES = (
    "1b:8:compiled+elementwise,0.8b:8:compiled,0.4b:16:compiled,0.1b:24:compiled,5b:4:compiled+full,"
    "0.4b:4:compiled:both,0.4b:4:eager:both,1b:2:compiled:both"
)
WARMUP = 3  # steps; step 0 measures RankMe, which waits for the device


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    size: str
    batch: int
    mode: str
    side: str
    attention: str  # kernels that may be taken: "default", "flash", "cudnn"

    def config(self) -> PretrainConfig:
        """The paper's recipe with the case's batch and way of running."""
        compiled, _, checkpointing = self.mode.partition("+")
        if compiled not in ("eager", "compiled"):
            raise SystemExit(f"mode {self.mode!r} begins with neither 'eager' nor 'compiled'")
        base = paper(self.size)  # type: ignore[arg-type]
        engine = {"compile": compiled == "compiled", "checkpointing": checkpointing or "none"}
        fields = base.model_dump() | {"batch": self.batch, "freeze_prototypes_steps": 0}
        fields["engine"] |= engine
        fields["koleo_group"] = min(base.koleo_group, self.batch)
        return PretrainConfig(**fields)


def cases(options: argparse.Namespace) -> list[Case]:
    """Those that `--cases` names."""
    found = []
    for told in options.cases.split(","):
        size, batch, mode, *side = told.split(":")
        names = ("ours", "straightforward") if side == ["both"] else side or ["ours"]
        found += [Case(size, int(batch), mode, name, options.attention) for name in names]
    return found


def choose_attention(kernels: str) -> None:
    """Leave one fast kernel to `scaled_dot_product_attention`, or all of them."""
    torch.backends.cuda.enable_flash_sdp(kernels in ("default", "flash"))
    torch.backends.cuda.enable_cudnn_sdp(kernels in ("default", "cudnn"))
    torch.backends.cuda.enable_mem_efficient_sdp(kernels == "default")


def warm(case: Case, side: Callable[..., Any], batch_of: Callable[..., Any]) -> None:
    """Two steps of three blocks: full attention, shared key heads, full attention."""
    sizes.FULL_ATTENTION_EDGE = 1
    config = case.config()
    short = {"changes": config.changes.model_copy(update={"layers": 3}), "decoder_layers": 1}
    config = config.model_copy(update=short)
    step, batch = side(case.side, config, torch.device("cuda")), batch_of(config, torch.device("cuda"))
    for number in range(2):
        step(number, batch)
    torch.cuda.synchronize()


def kernels(step: Callable[[], None]) -> str:
    """The kernels of a step, longest first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    return str(profile.key_averages().table(sort_by="self_cuda_time_total", row_limit=60, max_name_column_width=110))


def measure(
    case: Case, rounds: int, side: Callable[..., Any], batch_of: Callable[..., Any], profile: Path | None
) -> dict[str, Any]:
    """What a case takes, out of memory included; the kernels of one more step go to `profile`."""
    device, config = torch.device("cuda"), case.config()
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    try:
        step, batch = side(case.side, config, device), batch_of(config, device)
        for number in range(WARMUP):
            step(number, batch)
        torch.cuda.synchronize()
        start = time.perf_counter() - began
        torch.cuda.set_sync_debug_mode("error" if case.side == "ours" else "default")
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
        marks[0].record()
        for number in range(rounds):
            step(WARMUP + number, batch)
            marks[number + 1].record()
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        if profile is not None:
            profile.write_text(kernels(lambda: step(WARMUP, batch)))
    except torch.cuda.OutOfMemoryError:
        return asdict(case) | {"out_of_memory": True}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    times = sorted(a.elapsed_time(b) / 1e3 for a, b in pairwise(marks))
    seconds = times[len(times) // 2]
    useful = step_cost(config).total * config.batch  # of our step, for both
    found = {"seconds": round(seconds, 4), "fastest": round(times[0], 4), "slowest": round(times[-1], 4)}
    found |= {"images_per_second": round(config.batch / seconds, 3), "mfu": round(useful / seconds / PEAK, 4)}
    found |= {"peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2), "start_seconds": round(start, 1)}
    return asdict(case) | found


def row_of(found: dict[str, Any]) -> str:
    """A row of the table."""
    told = f"{found['size']:>6}{found['batch']:>6}  {found['mode']:<22}{found['side']:<16}{found['attention']:<9}"
    if "out_of_memory" in found or "failed" in found:
        return told + " " + found.get("failed", "out of memory")
    told += f"{found['images_per_second']:>9.2f}{found['seconds']:>9.3f}{found['mfu']:>8.1%}"
    return told + f"{TARGET_MFU[found['size']]:>7.0%}{found['peak_gib']:>10.1f}{found['start_seconds']:>8.0f}"


def run(options: argparse.Namespace, side: Callable[..., Any], batch_of: Callable[..., Any]) -> dict[str, Any]:
    """Print the table; returns its figures."""
    choose_attention(options.attention)
    if options.warm:
        for case in cases(options):
            warm(case, side, batch_of)
        return {"warmed": options.cases}
    lines = options.out.read_text().splitlines() if options.out and options.out.exists() else []
    results: list[dict[str, Any]] = [json.loads(line) for line in lines]
    print(
        "  size batch  mode                  side            kernels      img/s   s/step     MFU target  peak GiB start"
    )
    for case in cases(options):
        found = next((r for r in results if r.items() >= asdict(case).items()), None)
        if found is None:
            profile = None
            if options.profile and options.out:
                profile = options.out.with_name(f"{case.size}-{case.mode}-{case.side}-{case.attention}.kernels.txt")
            try:
                found = measure(case, options.rounds, side, batch_of, profile)
            except RuntimeError as failure:  # told in the table; the other cases are measured all the same
                found = asdict(case) | {"failed": f"{type(failure).__name__}: {str(failure)[:300]}"}
            gc.collect()
            torch.cuda.empty_cache()
            torch._dynamo.reset()
            results.append(found)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(found) + "\n")
        print(row_of(found), flush=True)
    return {"cases": results, "device": torch.cuda.get_device_name(), "torch": torch.__version__}
