"""The graph of the manifests' inputs: what an artifact came from, and what came from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from components.artifacts import Artifact, Store
from components.plan import diff_values
from components.steps import STEPS
from curation.audit.funnel import level

Key = tuple[str, str]  # kind, version
EARLIER = "previous"  # the role of what an earlier run left for a step to go on from: dedup.previous, cluster.previous


def ancestors(
    store: Store, artifacts: Iterable[Artifact], *, missing_ok: bool = False, earlier: bool = True
) -> dict[Key, Artifact]:
    """The artifacts and everything that they were made from, inputs before outputs.

    earlier: also what an earlier run left to go on from, and its ancestors; without it there is one run, so one
    `images` and one version of each curation step. Raises ArtifactError for an input that is gone, unless `missing_ok`.
    """
    found: dict[Key, Artifact] = {}

    def visit(artifact: Artifact) -> None:
        if (artifact.kind, artifact.version) in found:
            return
        for ref in artifact.manifest.inputs:
            if ref.role == EARLIER and not earlier:
                continue
            if (ref.kind, ref.version) not in found and (not missing_ok or store.committed(ref.kind, ref.version)):
                visit(store.get(ref.kind, ref.version))
        found[artifact.kind, artifact.version] = artifact

    for artifact in artifacts:
        visit(artifact)
    return found


def descendants(store: Store, artifact: Artifact) -> dict[Key, Artifact]:
    """The artifact and everything that was made from it."""
    everything = {(a.kind, a.version): a for a in store.all()}
    children: dict[Key, list[Key]] = {}
    for key, each in everything.items():
        for ref in each.manifest.inputs:
            children.setdefault((ref.kind, ref.version), []).append(key)
    found: dict[Key, Artifact] = {}
    waiting: list[Key] = [(artifact.kind, artifact.version)]
    while waiting:
        key = waiting.pop()
        if key not in found:
            found[key] = everything[key]
            waiting += children.get(key, [])
    return found


def diff(old: Artifact, new: Artifact) -> dict[str, list[tuple[str, object, object]]]:
    """What differs between two versions: recipe, inputs, models, code, metrics; (key, old, new) by topic."""
    a, b = old.manifest, new.manifest
    topics = {
        "recipe": (a.recipe, b.recipe),
        "inputs": ({r.role: r.version for r in a.inputs}, {r.role: r.version for r in b.inputs}),
        "models": ({m.name: m.sha256 for m in a.models}, {m.name: m.sha256 for m in b.models}),
        "code": (a.code.model_dump(), b.code.model_dump()),
        "content": ({"digest": a.digest}, {"digest": b.digest}),
        "metrics": (_comparable(a.metrics), _comparable(b.metrics)),
    }
    return {topic: changes for topic, (x, y) in topics.items() if (changes := diff_values(x, y))}


def _comparable(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics without the time they took, lists of named things by name: what differs is then one thing a line."""

    def named(value: Any) -> Any:
        if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
            return {item["name"]: {k: v for k, v in item.items() if k != "name"} for item in value}
        return value

    return {key: named(value) for key, value in metrics.items() if not key.endswith("seconds")}


@dataclass(frozen=True)
class FunnelRow:
    """One line of two funnels side by side: a step's rows in, kept, or dropped for a reason; None where it is not."""

    step: str
    what: str
    old: int | None
    new: int | None


def funnels(store: Store, old: Artifact, new: Artifact) -> list[FunnelRow]:
    """The funnels that led to two versions, in the order of the steps; empty where nothing was counted."""
    counted = [_counts(store, artifact) for artifact in (old, new)]
    rows: list[FunnelRow] = []
    for step in STEPS:
        before, after = (counts.get(step, {}) for counts in counted)
        reasons = sorted({*before, *after} - {"in", "kept"})
        for what in ("in", "kept", *reasons) if before or after else ():
            missing = 0 if what in reasons else None  # a reason that a funnel does not have dropped nobody
            was, now = (counts.get(what, missing) if counts else None for counts in (before, after))
            rows.append(FunnelRow(step, what, was, now))
    return rows


def _counts(store: Store, artifact: Artifact) -> dict[str, dict[str, int]]:
    """Rows in, kept, and dropped by reason, of the artifact's step and all before it."""
    found: dict[str, dict[str, int]] = {}
    for made in ancestors(store, [artifact], missing_ok=True, earlier=False).values():
        if counted := level(made.manifest.metrics):
            found[made.manifest.step] = {"in": counted.rows_in, "kept": counted.kept, **counted.dropped}
    return found


def changed_decisions(old: Artifact, new: Artifact) -> dict[str, list[str]]:
    """Image ids by how their decision changed between two versions of a decision table; empty without one."""
    tables = [artifact.manifest.tables.get("data", {}) for artifact in (old, new)]
    if not all("keep" in columns for columns in tables):
        return {}
    before, after = (_decisions(artifact) for artifact in (old, new))
    changed: dict[str, list[str]] = {}
    for image_id in sorted({*before, *after}):
        was, now = before.get(image_id, "absent"), after.get(image_id, "absent")
        if was != now:
            changed.setdefault(f"{was} -> {now}", []).append(image_id)
    return changed


def _decisions(artifact: Artifact) -> dict[str, str]:
    table = artifact.read(columns=["image_id", "keep", "reason"])
    rows = zip(*(table[name].to_pylist() for name in ("image_id", "keep", "reason")), strict=True)
    return {image_id: "kept" if keep else f"dropped ({reason})" for image_id, keep, reason in rows}
