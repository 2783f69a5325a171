"""What `sapiens2 predict` does: options to a job, progress, a closing line that names whatever has no answer."""

from __future__ import annotations

from components.prediction.boxes import choose_detector, read_boxes
from components.prediction.inputs import list_inputs
from components.prediction.run import RayOptions, make_job, predict_all, resolve_checkpoint
from components.prediction.summary import SUMMARY, closing_lines
from components.prediction.worker import DONE
from pipelines import display

console = display.console()


def run_predict(
    task: str,
    images: str,
    out: str,
    checkpoint: str | None,
    size: str | None,
    people: str | None,
    detector: str | None,
    boxes: str | None,
    min_score: float | None,
    keypoint_score: float,
    image_size: tuple[int, int] | None,
    batch: int,
    flip: bool,
    device: str | None,
    no_overlays: bool,
    ray: bool,
    workers: int,
    gpus: float,
    root: str,
) -> int:
    """Returns the exit code: 0 when any picture has an answer, else 1. Raises ValueError for what the user can mend."""
    if boxes is not None and detector is not None:
        raise ValueError("--boxes and --detector both say where people are: give one of them")
    inputs = list_inputs(images, out)
    job = make_job(
        task,
        resolve_checkpoint(checkpoint, root, task),
        out,
        size=size,
        people=None if people is None else resolve_checkpoint(people, root),
        boxes=None if boxes in (None, "none") else read_boxes(str(boxes)),
        detector=choose_detector(detector or "builtin", min_score) if boxes is None else None,
        image_size=image_size,
        least_keypoint_score=keypoint_score,
        overlays=not no_overlays,
        batch=batch,
        flip=flip,
        device=device,
        keep_plain=inputs.video is not None,
    )
    with display.counted("predict", "pictures", len(inputs.names), console) as progress:
        options = RayOptions(workers=workers, gpus=gpus) if ray else None
        summary = predict_all(job, inputs, ray=options, progress=progress)
    for line in closing_lines(summary):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"{out}/{SUMMARY}", markup=False, soft_wrap=True)
    return 0 if summary["counts"][DONE] else 1
