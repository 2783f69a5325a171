"""Where a step runs, and on what: in its own process, as a job of a Ray cluster, or as a RayJob of its own.

A placement changes where the work is done and never what comes out: it enters no version.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from components.steps import STEPS, Step

VARIABLE = "SAPIENS2_PLACEMENT"  # JSON of a step's placement, set on its task when a pipeline is compiled
QUANTITY = re.compile(r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")
SECRETIVE = re.compile(r"(SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|ACCESS_KEY|API_KEY|PRIVATE_KEY)", re.IGNORECASE)


class PlacementError(ValueError):
    """A placement is wrong; the message names the field and the mend."""


class Placement(BaseModel):
    """Where one step runs.

    mode: `attach` works in the step's own process, on the Ray at RAY_ADDRESS or one it starts; `jobs` submits to the
    Jobs API of a cluster that is there; `rayjob` makes a KubeRay RayJob, sized for the step, and deletes it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["attach", "jobs", "rayjob"] = "attach"
    address: str = Field(default="", description="jobs: URL of the cluster's dashboard; default RAY_API_SERVER_ADDRESS")
    namespace: str = Field(default="", description="rayjob: Kubernetes namespace; default the step's own")
    image: str = Field(default="", description="container image of the step and of its Ray pods")
    cpus: float = Field(
        default=1.0, gt=0, description="of each Ray worker pod (with workers=0 of the only pod), in cores"
    )
    memory: str = Field(default="4Gi", description="of each Ray worker pod, a Kubernetes quantity")
    gpus: int = Field(default=0, ge=0, description="of each Ray worker pod")
    workers: int = Field(default=0, ge=0, description="rayjob: worker pods; 0 is one pod that does everything")
    max_workers: int | None = Field(default=None, ge=1, description="rayjob: up to so many, by Ray's autoscaler")
    head_cpus: float = Field(default=1.0, gt=0, description="rayjob: of the head pod, where there are workers")
    head_memory: str = Field(default="4Gi", description="rayjob: of the head pod, where there are workers")
    driver_cpus: float = Field(
        default=0.0, ge=0, description="jobs, rayjob: reserved in Ray for the step's own process"
    )
    driver_gpus: float = Field(
        default=0.0, ge=0, description="jobs, rayjob: reserved in Ray for the step's own process"
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels of nodes that pods may use")
    queue: str = Field(default="", description="Kueue LocalQueue")
    service_account: str = Field(default="", description="rayjob: of the Ray pods")
    secrets: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Kubernetes secret -> its keys, each an environment variable of that name"
    )
    env: dict[str, str] = Field(default_factory=dict, description="plain environment variables: endpoints, regions")
    token_secret: str = Field(default="sapiens2-ray-token", description="secret with Ray's auth_token")
    start_timeout_s: float = Field(default=1800.0, gt=0, description="rayjob: how long pods may take to come up")
    poll_s: float = Field(default=5.0, gt=0, description="between two looks at a job")

    @field_validator("memory", "head_memory")
    @classmethod
    def _is_quantity(cls, value: str) -> str:
        if not QUANTITY.match(value):
            raise ValueError(f"{value!r} is no Kubernetes quantity: write 4Gi or 512Mi")
        return value

    @field_validator("env")
    @classmethod
    def _is_public(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if SECRETIVE.search(name):
                raise ValueError(
                    f"{name} looks like a secret and would lie open in the compiled pipeline: put it into a "
                    "Kubernetes secret and name that under `secrets`"
                )
        return value

    @field_validator("max_workers")
    @classmethod
    def _is_upper(cls, value: int | None, info: Any) -> int | None:
        if value is not None and value < info.data.get("workers", 0):
            raise ValueError(f"max_workers={value} is below workers={info.data['workers']}")
        return value

    @classmethod
    def from_environment(cls) -> Placement:
        """The placement that this step's task was compiled with; without one, `attach`."""
        text = os.environ.get(VARIABLE)
        return cls.model_validate_json(text) if text else cls()

    def to_json(self) -> str:
        """How a placement travels to the step: what differs from the defaults."""
        return self.model_dump_json(exclude_defaults=True)


class Placements:
    """The placements of a pipeline: a default, and what steps or families of steps have of their own."""

    def __init__(self, default: Mapping[str, Any] | None = None, steps: Mapping[str, Mapping[str, Any]] | None = None):
        self._default, self._steps = dict(default or {}), {name: dict(own or {}) for name, own in (steps or {}).items()}
        families = set(STEPS) | {step.family for step in STEPS.values()}
        for name in self._steps:
            if name not in families:
                raise PlacementError(f"placement of an unknown step {name!r}; the steps are {', '.join(STEPS)}")
        for step in STEPS.values():
            self.of(step)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Placements:
        """From a file with `default:` and `steps: {STEP: ...}`. Raises PlacementError."""
        import yaml

        try:
            data = yaml.safe_load(Path(path).read_text()) or {}
        except FileNotFoundError as error:
            raise PlacementError(f"there is no placement file {path}") from error
        except UnicodeDecodeError as error:
            raise PlacementError(f"{path} is no text: a placement is a YAML with `default` and `steps`") from error
        except yaml.YAMLError as error:
            raise PlacementError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
        if not isinstance(data, dict) or set(data) - {"default", "steps"}:
            raise PlacementError(f"{path} must have `default` and `steps`, and nothing else, at its top")
        return cls(data.get("default"), data.get("steps"))

    def of(self, step: Step) -> Placement:
        """The placement of a step: its own fields over its family's over the default. Raises PlacementError."""
        chosen = {**self._default, **self._steps.get(step.family, {}), **self._steps.get(step.name, {})}
        try:
            return Placement.model_validate(chosen)
        except ValidationError as error:
            told = [(".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors()]
            problems = "; ".join(f"{where}: {message}" for where, message in told)
            raise PlacementError(f"placement of {step.name}: {problems}") from error
