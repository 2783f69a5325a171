"""One Ray for a whole run: started on loopback with token auth, found again through RAY_ADDRESS."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sapiens2.head_watch import told_when_lost
from sapiens2.launch import prepare_environment

OBJECT_STORE_BYTES = 400_000_000
# Ray's C++ processes say on stderr what its Python side raises anyway.
QUIET = {"RAY_DEDUP_LOGS": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


@contextmanager
def ray_session() -> Iterator[str]:
    """A Ray to work on: the one at RAY_ADDRESS, or a local one that ends with the block. Yields its address."""
    address = os.environ.get("RAY_ADDRESS")
    prepare_environment(starts=not address)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield ray.get_runtime_context().gcs_address
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        options["address"] = address
    else:
        # "local", or the cluster that `ray start` last made on this machine would be joined
        options |= {"address": "local", "num_cpus": max(2, os.cpu_count() or 1), "include_dashboard": False}
        options |= {"_node_ip_address": "127.0.0.1", "object_store_memory": OBJECT_STORE_BYTES}
    ray.init(**options)
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address  # for the processes started below this one
    try:
        with told_when_lost(os.environ["RAY_ADDRESS"]):
            yield os.environ["RAY_ADDRESS"]
    finally:
        if not address:
            os.environ.pop("RAY_ADDRESS")
        ray.shutdown()


def quiet_ray_data() -> None:
    """No progress bars of Ray's own: the step says where it is."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # after the context, which configures logging itself
