"""A whole prediction run: chunks through one worker here, or through many on Ray; then the summary."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.artifacts import Store
from components.prediction.boxes import DetectorChoice, GivenBoxes
from components.prediction.inputs import Inputs
from components.prediction.summary import write_film, write_summary
from components.prediction.worker import Job, PredictWorker
from components.ray_session import quiet_ray_data, ray_session
from components.storage import Storage

Progress = Callable[[int, int], None]
"""Called with pictures done and pictures in all."""


@dataclass(frozen=True)
class RayOptions:
    """How a run is spread: worker processes, CPUs and GPUs of each."""

    workers: int = 2
    cpus: float = 1
    gpus: float = 0


def resolve_checkpoint(reference: str | None, root: str, task: str = "") -> str:
    """The path or URI of the weights that a path, or an artifact `KIND[=VERSION]` or tag under the root, stands for.

    None stands for the latest artifact of the task, also where the working folder has a folder of that name, such as
    the answers of an earlier run. Raises ValueError when it is neither.
    """
    if reference is None:
        reference = task
    elif "://" in reference or "/" in reference or reference.endswith(".safetensors") or Path(reference).exists():
        return reference
    artifact = Store(root).find(reference)
    return artifact.storage.full(artifact.file_path("model.safetensors"))


def make_job(
    task: str,
    checkpoint: str,
    out: str,
    *,
    size: str | None = None,
    people: str | None = None,
    boxes: GivenBoxes | None = None,
    detector: DetectorChoice | None = None,
    **options: Any,
) -> Job:
    """A job whose weights are known to be what they should be, and whose `out` can be written; nothing is run yet.

    options: further fields of Job. Raises ValueError or FileNotFoundError for weights, ValueError for `out`.
    """
    from sapiens2.engine import storage
    from sapiens2.tasks.head_specs import TASKS

    if task not in TASKS:
        raise ValueError(f"there is no task called {task!r}; use one of {', '.join(TASKS)}")
    weights = [_weights(path) for path in (checkpoint, *([people] if people else []))]
    digests = [storage.fingerprint(path)[1] for path in weights]
    Storage(out).ensure_writable()
    return Job(
        task,
        weights[0],
        digests[0],
        size,
        out,
        boxes=boxes,
        detector=detector,
        people=weights[1] if people else None,
        people_digest=digests[1] if people else None,
        **options,
    )


def _weights(path: str) -> str:
    from sapiens2.engine import storage

    path = path if path.endswith(".safetensors") else storage.join(path, "model.safetensors")
    if not storage.exists(path):
        raise FileNotFoundError(f"there are no weights at {path}; give a .safetensors file or the folder of a run")
    return path


def predict_all(
    job: Job, inputs: Inputs, *, ray: RayOptions | None = None, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Predict on every picture; files, table and summary lie below `job.out`. Returns the summary.

    Pictures done by an earlier run with the same settings are kept. Raises ValueError for weights that do not fit.
    """
    total = len(inputs.names)
    records: dict[int, list[dict[str, Any]]] = {}
    done = 0
    for index, made in _here(job, inputs) if ray is None else _on_ray(job, inputs, ray):
        records[index] = made
        done += len(made)
        progress(done, total)
    ordered = [record for index in sorted(records) for record in records[index]]
    notes = [*inputs.notes, *_notes(job, inputs), *_unseen(job, ordered)]
    if inputs.video is not None and job.overlays:
        problem = write_film(job, ordered, inputs.video)
        notes += [problem] if problem else []
    return write_summary(job, ordered, notes)


def _notes(job: Job, inputs: Inputs) -> list[str]:
    unknown = [] if job.boxes is None else job.boxes.unknown(inputs.names)
    if not unknown:
        return []
    shown = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
    return [f"{len(unknown)} pictures of the box file are not among the pictures: {shown}"]


def _unseen(job: Job, records: list[dict[str, Any]]) -> list[str]:
    """People of whom an overlay shows no keypoint, and people of few body points where most are such.

    A threshold too high for this model looks like a failure.
    """
    from sapiens2.tasks.vocabulary import keypoints

    least, body = job.least_keypoint_score, keypoints().group("body").tolist()
    scores = [p["keypoints"][2::3] for record in records for p in record["people"] if "keypoints" in p]
    unseen = sum(max(each) < least for each in scores)
    few = -(-len(body) // 3)
    faint = sum(sum(each[k] >= least for k in body) < few for each in scores)
    notes, mend = [], "lower --keypoint-score"
    if unseen:
        notes.append(f"{unseen} of {len(scores)} people have no keypoint of score {least} to draw: {mend}")
    if faint > max(unseen, len(scores) / 2):
        of = f"fewer than {few} of the {len(body)} body points"
        notes.append(f"{faint} of {len(scores)} people have {of} of score {least} to draw: {mend}")
    return notes


def _here(job: Job, inputs: Inputs) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    worker = PredictWorker(job)
    for index, chunk in enumerate(inputs.chunks):
        yield index, worker(chunk)


class _Actor:
    """What Ray Data instantiates once in each worker process."""

    def __init__(self, job: Job) -> None:
        self.worker = PredictWorker(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        records = [json.dumps(self.worker(pickle.loads(chunk))) for chunk in batch["chunk"]]
        return {"index": batch["index"], "records": records}


def _on_ray(job: Job, inputs: Inputs, options: RayOptions) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Chunks in the order in which they are done. The place `job.out` must be the same for all machines."""
    rows = [{"index": index, "chunk": pickle.dumps(chunk)} for index, chunk in enumerate(inputs.chunks)]
    workers = min(options.workers, len(rows))
    with ray_session():
        import ray

        quiet_ray_data()
        mapped = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=workers, max_size=workers),
            num_cpus=options.cpus,
            num_gpus=options.gpus,
        )
        for batch in mapped.iter_batches(batch_size=1, prefetch_batches=0):
            for index, made in zip(batch["index"], batch["records"]):
                yield int(index), json.loads(str(made))
