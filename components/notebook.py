"""The notebook call: a pool of pictures in, a balanced selection out, every step an artifact under the root."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from components.artifacts import Artifact, Store
from components.plan import plan
from components.ray_session import ray_session
from components.run_step import run_step
from components.settings import Settings
from components.steps import CURATION, STEPS


@dataclass(frozen=True)
class Selection:
    """What was selected: the ids, the artifacts of every curation step by name."""

    image_ids: list[str]
    artifacts: dict[str, Artifact]

    @property
    def shard_files(self) -> dict[str, list[str]]:
        """Paths or URIs of the training-ready Parquet files, by split."""
        shards = self.artifacts["export"]
        files = {split: shards.manifest.files_of(split) for split in shards.manifest.tables}
        return {split: [shards.storage.full(entry.path) for entry in entries] for split, entries in files.items()}

    def dropped(self) -> dict[str, dict[str, int]]:
        """How many rows each step dropped, by reason."""
        return {name: artifact.manifest.metrics.get("dropped", {}) for name, artifact in self.artifacts.items()}


def curate(
    pool: str,
    root: str,
    *,
    profile: str = "builtin",
    preset: str = "demo",
    overrides: Mapping[str, Any] | None = None,
) -> Selection:
    """Curate a pool in this process; what is committed under `root` is reused.

    pool: folder, URL list, .tar, .parquet or s3:// prefix. overrides: `step.field` -> value, as `--set`. Raises
    ValueError for a pool, profile or setting that is wrong, FileNotFoundError for weights that are missing.
    """
    from curation.stages.ingest import list_sources

    settings, store = Settings(profile=profile, preset=preset, overrides=overrides or {}), Store(root)
    settings.check(CURATION)
    config: Any = settings.config(STEPS["ingest"])
    listing = list_sources(pool, config)
    made: dict[str, Artifact] = {}
    with ray_session() if config.workers else nullcontext():
        for each in plan(CURATION, settings, store, source=listing):
            inputs = {read.role: made[read.producer] for read in each.step.inputs}
            source = listing if each.step.name == "ingest" else None
            made[each.step.name] = run_step(each.step, each.config, inputs, store.root, source=source).artifact
    chosen = made["balance"].read(columns=["image_id", "keep"]).to_pylist()
    return Selection([row["image_id"] for row in chosen if row["keep"]], made)
