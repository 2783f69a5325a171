"""Every table that takes a GPU, in one call: kernels, steps, backbones, precision, doctor, each in its own process.

    python benchmarks/gpu_tables.py --out DIR [--seconds 420] [--only steps,backbone]

The compiler's cache is filled first, by processes side by side; then nothing runs beside what is measured. Each part
leaves its log in DIR; steps and backbones leave a JSON line per case and go on where they were, if DIR is kept. A part
that fails, or that is out of time, is told at the end, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
OURS = (
    "1b:8:compiled",
    "0.8b:8:compiled",
    "0.4b:16:compiled",
    "0.1b:24:compiled",
    "5b:4:compiled+full",
    "0.8b:16:compiled+elementwise",
    "1b:8:compiled+elementwise",
)
BESIDE = ("0.4b:4:compiled:both", "0.4b:4:eager:both", "1b:2:compiled:both", "1b:2:eager:both")
STEP = ("pretrain_step.py", "--device", "cuda")
BACKBONE = ("backbone.py", "--device", "cuda")
COMPILED = ("--sizes", "0.1b,0.4b", "--batches", "8", "--compiled")
WARM_SECONDS = 120  # at most


def parts(out: Path) -> dict[str, tuple[str, ...]]:
    """What is measured, in order."""
    steps = (*STEP, "--rounds", "6", "--out", str(out / "steps.jsonl"))
    backbone = (*BACKBONE, "--rounds", "15", "--out", str(out / "backbone.jsonl"))
    return {
        "kernels": ("attention_kernels.py",),
        "steps": (*steps, "--cases", ",".join(OURS)),
        "cudnn": (*steps, "--attention", "cudnn", "--cases", OURS[-1]),
        "backbone": (*backbone, "--sizes", "0.1b,0.4b,0.8b,1b,5b", "--batches", "1,8"),
        "precision": ("precision.py", "--out", str(out / "precision.json")),
        "beside": (*steps, "--cases", ",".join(BESIDE)),
        "doctor": ("-m", "pipelines.cli", "doctor", "train", "--size", "1b", "--batch", "8"),
        "backbone-compiled": (*backbone, *COMPILED),
    }


def warmers(wanted: list[str]) -> list[tuple[str, ...]]:
    """What fills the compiler's cache, for the parts that are wanted."""
    step = (*STEP, "--warm", "--cases")
    told: dict[str, list[tuple[str, ...]]] = {
        "steps": [(*step, case) for case in OURS],
        "beside": [(*step, case) for case in (BESIDE[0], BESIDE[2])],
        "cudnn": [(*STEP, "--warm", "--attention", "cudnn", "--cases", OURS[-1])],
        "backbone-compiled": [(*BACKBONE, "--rounds", "1", *COMPILED)],
    }
    return [arguments for part in wanted for arguments in told.get(part, [])]


def command(arguments: tuple[str, ...]) -> list[str]:
    first, *rest = arguments
    return [sys.executable, *([first] if first == "-m" else [str(HERE / first)]), *rest]


def warm(out: Path, wanted: list[str]) -> None:
    """All at once, for a while."""
    began = time.monotonic()
    running = []
    for number, arguments in enumerate(warmers(wanted)):
        log = (out / f"warm-{number}.log").open("w")
        running.append(subprocess.Popen(command(arguments), stdout=log, stderr=subprocess.STDOUT))
    for process in running:
        try:
            process.wait(max(1.0, WARM_SECONDS - (time.monotonic() - began)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    codes = [process.returncode for process in running]
    print(f"compiler's cache filled in {time.monotonic() - began:.0f} s, exit codes {codes}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder of logs and results")
    parser.add_argument("--seconds", type=float, default=1200, help="of all parts together, after the warming")
    parser.add_argument("--only", help="parts, by commas")
    parser.add_argument("--step-seconds", type=float, default=600, help="of the part `steps`")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["PYTHONUNBUFFERED"] = "1"
    every = parts(options.out)
    wanted = options.only.split(",") if options.only else list(every)
    warm(options.out, wanted)
    began, failed = time.monotonic(), []
    for name in wanted:
        arguments = every[name]
        left = options.seconds - (time.monotonic() - began)
        left = min(left, options.step_seconds) if name == "steps" else left
        if left < 5:
            failed.append(f"{name} (no time left)")
            continue
        log = options.out / f"{name}.log"
        start = time.monotonic()
        with log.open("w") as file:
            try:
                code = subprocess.run(
                    command(arguments), stdout=file, stderr=subprocess.STDOUT, timeout=left
                ).returncode
            except subprocess.TimeoutExpired:
                code = 124
        failed += [f"{name} (exit code {code})"] if code else []
        print(f"== {name}: {time.monotonic() - start:.0f} s, exit code {code}")
        print(
            "\n".join(line[:150] for line in log.read_text().splitlines()[-24:] if not line.startswith("{")), flush=True
        )
    print("failed: " + ", ".join(failed) if failed else "all parts done", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
