"""One Ray for a whole run: started on loopback with token auth, found again through RAY_ADDRESS."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sapiens2.launch import ENVIRONMENT as LAUNCH_ENVIRONMENT

OBJECT_STORE_BYTES = 400_000_000
# Ray's C++ processes say on stderr what its Python side raises anyway.
ENVIRONMENT = {**LAUNCH_ENVIRONMENT, "RAY_DEDUP_LOGS": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


def prepare_environment() -> None:
    """Set what Ray reads from the environment, where the user has not."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def ray_session(*, dashboard: bool = False) -> Iterator[str]:
    """A Ray to work on: the one at RAY_ADDRESS, or a local one that ends with the block. Yields its address."""
    prepare_environment()
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        yield ray.get_runtime_context().gcs_address
        return
    if address:
        ray.init(address=address, **quiet)
        try:
            yield address
        finally:
            ray.shutdown()
        return
    ray.init(
        num_cpus=max(2, os.cpu_count() or 1),
        include_dashboard=dashboard,
        dashboard_host="127.0.0.1",
        _node_ip_address="127.0.0.1",
        object_store_memory=OBJECT_STORE_BYTES,
        **quiet,
    )
    gcs = ray.get_runtime_context().gcs_address
    os.environ["RAY_ADDRESS"] = gcs
    try:
        yield gcs
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        ray.shutdown()


def quiet_ray_data() -> None:
    """No progress bars of Ray's own: the step says where it is."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # after the context, which configures logging itself
