"""A task of a pipeline with its placement: image, resources, secrets by name, and what the step reads of it."""

from __future__ import annotations

from typing import Any

from components.placement import VARIABLE, Placement, Placements
from components.rayjob import QUEUE_LABEL
from components.steps import STEPS

# A step whose work is elsewhere starts it, watches it and reads its manifest.
WATCHER_CPUS, WATCHER_MEMORY = "1", "2G"


def as_it_comes(task: Any, name: str) -> Any:
    """A task that is named after its step, uncached by KFP, and otherwise as it is."""
    task.set_caching_options(False)
    task.set_display_name(name)
    return task


class Placer:
    """Names tasks and places them; given to the functions of pipelines.pipelines."""

    def __init__(self, placements: Placements) -> None:
        self.placements = placements

    def __call__(self, task: Any, name: str) -> Any:
        """The task, with the placement of the step `name`."""
        place = self.placements.of(STEPS[name])
        as_it_comes(task, name)
        if place.image:
            task.set_container_image(place.image)
        for variable, value in place.env.items():
            task.set_env_variable(variable, value)
        self._resources(task, place)
        self._secrets(task, place)
        if place != Placement():
            task.set_env_variable(VARIABLE, place.to_json())
        return task

    def _resources(self, task: Any, place: Placement) -> None:
        from kfp import kubernetes

        here = place.mode == "attach"
        set_fields = place.model_fields_set
        if not here or "cpus" in set_fields:
            task.set_cpu_request(f"{place.cpus:g}" if here else WATCHER_CPUS)
        if not here or "memory" in set_fields:
            memory = place.memory if here else WATCHER_MEMORY
            task.set_memory_request(memory).set_memory_limit(memory)
        if here and place.gpus:
            task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(place.gpus)
        if here:
            for label, value in place.node_selector.items():
                kubernetes.add_node_selector(task, label, value)
            if place.queue:
                kubernetes.add_pod_label(task, QUEUE_LABEL, place.queue)

    def _secrets(self, task: Any, place: Placement) -> None:
        from kfp import kubernetes

        for secret, keys in place.secrets.items():
            kubernetes.use_secret_as_env(task, secret, {key: key for key in keys})
        if place.mode != "attach":  # to ask the cluster for the job's state and its log
            kubernetes.use_secret_as_env(task, place.token_secret, {"auth_token": "RAY_AUTH_TOKEN"})
            task.set_env_variable("RAY_AUTH_MODE", "token")
