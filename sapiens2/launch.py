"""Training on Ray Train: the same run functions, on any number of workers, with their files as the only result.

Ray holds the processes and restarts them when one dies; what was trained survives in the run's own state folder. With
`workers=0` the function runs in this process and Ray is not imported.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import pickle
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sapiens2.engine import storage as files
from sapiens2.engine.control import PLAIN, Control
from sapiens2.engine.interrupt import Interrupted, StopRequest
from sapiens2.head_watch import told_when_lost
from sapiens2.history_follower import Follower
from sapiens2.worker_errors import is_final, raise_recorded, record

TARGETS = {"pretrain": "sapiens2.pretrain.run:pretrain", "finetune": "sapiens2.tasks.run:finetune"}

# Read by Ray when it is imported or starts a run: who may connect, and polling that suits runs of minutes.
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
}
# Only for a Ray that is started here: nothing but this machine may reach it, over any of its sockets.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
OBJECT_STORE_BYTES = 300_000_000
_POLL_S = 0.2
_STOP_POLL_S = 1.0
_RESIZE_S = 60.0  # between two looks at whether there is room for more workers


def launch(
    target: str,
    config: BaseModel,
    *,
    workers: int,
    storage: str,
    min_workers: int = 0,
    cpus_per_worker: float = 1.0,
    max_failures: int = 2,
    control: Control = PLAIN,
    **paths: Any,
) -> dict[str, Any]:
    """Run `target` ("pretrain", "finetune" or "module:function") on `workers` processes and return its metrics.json.

    `storage` is a folder or s3:// URI that all workers reach, for Ray's own notes; `paths` go to the target and must
    have `out` and `state`. A worker that dies is replaced up to `max_failures` times, and the run continues from its
    newest saved state; with `min_workers` it may go on with fewer, down to that, and grows again when there is room, at
    counts that divide its batch. Errors of the target are raised here as they were (ValueError stays ValueError), and
    are not retried. SIGTERM and Ctrl-C save the state and raise Interrupted.
    """
    where = TARGETS.get(target, target)
    if ":" not in where:
        raise ValueError(f"unknown training target {target!r}: use one of {', '.join(TARGETS)}, or module:function")
    if workers < 0:
        raise ValueError(f"workers={workers} is negative: use 0 to train in this process, or the number of workers")
    if min_workers > workers:
        raise ValueError(f"min_workers={min_workers} is above workers={workers}: lower it, or use more workers")
    paths = {name: _absolute(value) for name, value in paths.items()}
    if workers == 0:
        return _function(where)(config, control=control, **paths)
    run = files.join(_absolute(storage), f"run-{uuid.uuid4().hex[:12]}")
    job = {"where": where, "config": config, "paths": paths, "run": run}
    with _ray_session():
        trainer = _trainer(job, config, run, (min_workers or workers, workers), cpus_per_worker, max_failures)
        failure = _fit(trainer, run, Follower(paths["out"], control), control)
    raise_recorded(run)
    if failure is not None:
        raise failure
    metrics: dict[str, Any] = json.loads(files.read_bytes(files.join(paths["out"], "metrics.json")))
    return metrics


def _function(where: str) -> Callable[..., dict[str, Any]]:
    module, _, name = where.partition(":")
    function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
    return function


def _absolute(value: Any) -> Any:
    """Local paths as absolute ones, since a worker has another working directory; URIs and other values unchanged."""
    if isinstance(value, list | tuple):
        return [_absolute(item) for item in value]
    if isinstance(value, str) and value and ":" not in value.partition("/")[0]:
        return str(Path(value).absolute())
    return value


# ---- in the process that launches ----


def prepare_environment(*, starts: bool) -> None:
    """Set what Ray reads from the environment, where the user has not; `starts`: a local Ray is about to be started.

    To be called before Ray is imported: whom it trusts and where it listens is settled then, and stays.
    """
    settled = {"RAY_AUTH_MODE"} if "ray" in sys.modules or not starts else set()
    wanted = ENVIRONMENT | (LOOPBACK if starts and "ray" not in sys.modules else {})
    for name, value in wanted.items():
        if name not in settled:
            os.environ.setdefault(name, value)


@contextmanager
def _ray_session() -> Iterator[None]:
    """The Ray that is connected already, the one at RAY_ADDRESS, or a local one that ends with the block."""
    address = os.environ.get("RAY_ADDRESS")
    prepare_environment(starts=not address)
    import ray

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if address:
        ray.init(address=address, **quiet)
    else:
        ray.init(
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=OBJECT_STORE_BYTES,
            **quiet,
        )
    try:
        with told_when_lost(ray.get_runtime_context().gcs_address):
            yield
    finally:
        ray.shutdown()


def _trainer(
    job: dict[str, Any],
    config: BaseModel,
    run: str,
    bounds: tuple[int, int],
    cpus_per_worker: float,
    max_failures: int,
) -> Any:
    """`bounds`: the fewest and the most workers."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    device = getattr(getattr(config, "engine", None), "device", "cpu")
    available = ray.cluster_resources()
    fewest, workers = bounds
    use_gpu = device == "cuda" or (device == "auto" and available.get("GPU", 0) >= fewest)
    needs = {"CPU": cpus_per_worker * fewest, "GPU": float(fewest if use_gpu else 0)}
    for resource, amount in needs.items():
        if amount > available.get(resource, 0):
            raise ValueError(
                f"{fewest} workers need {amount:g} {resource}, Ray has {available.get(resource, 0):g}: "
                "use fewer workers, set cpus_per_worker lower, or add nodes"
            )
    root, _, name = run.rpartition("/")
    if not files.is_remote(root):
        files.local_path(root).mkdir(parents=True, exist_ok=True)
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    # The job travels as bytes: Ray's controller would import torch to look at a configuration that only workers need.
    return _trainer_class(workers, _counts(config, fewest, workers))(
        _work,
        **_meeting(workers),
        train_loop_config={"job": pickle.dumps(job)},
        scaling_config=ScalingConfig(  # type: ignore[call-arg]  # its types are those of Ray Train's first version
            num_workers=workers if fewest == workers else bounds,  # type: ignore[arg-type]
            use_gpu=use_gpu,
            resources_per_worker={"CPU": cpus_per_worker},
            elastic_resize_monitor_interval_s=_RESIZE_S,
        ),
        run_config=RunConfig(name=name, storage_path=root, failure_config=FailureConfig(max_failures=max_failures)),
    )


def _counts(config: BaseModel, fewest: int, most: int) -> list[int]:
    """Numbers of workers among which the batch divides. Raises ValueError when there is none."""
    batch = getattr(config, "batch", 0)
    parts = getattr(getattr(config, "engine", None), "micro_batches", 1)
    found = [count for count in range(fewest, most + 1) if batch % (count * parts) == 0]
    if not found and fewest < most:
        raise ValueError(f"batch={batch} divides among no number of workers from {fewest} to {most}: choose others")
    return found


def _trainer_class(workers: int, counts: list[int]) -> Any:
    """TorchTrainer, or for one worker its base: without a process group neither driver nor controller needs torch."""
    module = "ray.train.v2.api.data_parallel_trainer" if workers == 1 else "ray.train.torch"
    base: Any = getattr(importlib.import_module(module), "DataParallelTrainer" if workers == 1 else "TorchTrainer")
    if not hasattr(base, "_create_default_callbacks"):
        return base

    class LeanTrainer(base):
        """Without two helper processes, which cost seconds: one serves data sets, but the targets read their own; the
        other frees the workers' resources when the controller dies, which Ray's core does for these as well."""

        def _create_default_callbacks(self) -> list[Any]:
            spared = ("DatasetsCallback", "PlacementGroupCleanerCallback")
            return [made for made in super()._create_default_callbacks() if type(made).__name__ not in spared]

        def _initialize_and_run_controller(self, **parts: Any) -> Any:
            if self.scaling_config.elasticity_enabled:
                parts["scaling_policy"] = _elastic(self.scaling_config, counts)
            return super()._initialize_and_run_controller(**parts)

    return LeanTrainer


def _elastic(scaling: Any, counts: list[int]) -> Any:
    """Ray's policy of as many workers as there is room for, kept to counts among which the batch divides."""
    from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy

    class Dividing(ElasticScalingPolicy):
        def _count_possible_workers(self, reserved_resources: Any) -> int:
            room = super()._count_possible_workers(reserved_resources)
            return max((count for count in counts if count <= room), default=0)

    return Dividing(scaling)


def _meeting(workers: int) -> dict[str, Any]:
    """How several workers meet: as Ray has it, but with a store that listens on the node's own address alone."""
    if workers == 1:
        return {}
    from ray.train.torch import config

    class Backend(config._TorchBackend):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(_keep_to_loopback)
            theirs, config.get_address_and_port = config.get_address_and_port, _serve_store
            try:
                super().on_start(worker_group, backend_config)
            finally:
                config.get_address_and_port = theirs

    class Config(config.TorchConfig):
        @property
        def backend_cls(self) -> type[Backend]:
            return Backend

    return {"torch_config": Config()}


def _serve_store() -> tuple[str, int]:
    import ray.util

    from sapiens2 import rendezvous

    return rendezvous.serve(ray.util.get_node_ip_address())


def _keep_to_loopback() -> None:
    import ray.util

    from sapiens2 import rendezvous

    rendezvous.keep_to_loopback(ray.util.get_node_ip_address())


def _fit(trainer: Any, run: str, follower: Follower, control: Control) -> Exception | None:
    """Run the trainer in a thread, so that this one hears signals and shows progress; returns what it failed with."""
    failures: list[Exception] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    told = False
    with StopRequest(control.stop) as asked:
        while thread.is_alive():
            thread.join(_POLL_S)
            follower.look()
            if asked and not told:
                files.write_bytes(files.join(run, "stop"), b"")
                told = True
    follower.look()
    return failures[0] if failures else None


# ---- in a worker ----


def _work(parcel: dict[str, bytes]) -> None:
    """One rank: runs the target, unless an earlier attempt ended with an error that is final."""
    import ray.train

    job = pickle.loads(parcel["job"])
    context = ray.train.get_context()
    leads, workers = context.get_world_rank() == 0, context.get_world_size()
    run = job["run"]
    if files.exists(files.join(run, "error.json")):
        return
    control = Control(stop=_stop_watch(run) if leads else None, shows=False)
    try:
        _function(job["where"])(job["config"], control=control, **job["paths"])
    except Exception as error:
        if not is_final(error, workers):
            raise
        if leads or not isinstance(error, Interrupted):
            record(run, error)
        if workers > 1 and not isinstance(error, Interrupted):
            raise  # the other ranks may wait for this one: only a restart of all ends that


def _stop_watch(run: str) -> Callable[[], bool]:
    """A question that costs nothing: a thread looks for the launcher's stop file."""
    found = threading.Event()

    def look() -> None:
        uri = files.join(run, "stop")
        while not files.exists(uri):
            time.sleep(_STOP_POLL_S)
        found.set()

    threading.Thread(target=look, name="stop-watch", daemon=True).start()
    return found.is_set
