"""Audits of what a root holds: pictures to label, thresholds and confusion from the labels, whom a filter drops."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from components.artifacts import Artifact, ArtifactError, Store
from components.digest import canonical_json
from components.picture_lookup import ImageLookup, narrow
from curation.audit.contact_sheet import BLUR_NSFW, blurred, thumbnail
from curation.audit.label_page import QUESTIONS, Shown, choices, label_page, yes_no
from curation.audit.sampling import Stratum, by_name, by_score
from curation.stages.filter import FilterConfig, rules
from curation.stages.measures import floats, measure, rows_for

MAX_LABELS = 500
LABEL_PX = 640


@dataclass(frozen=True)
class Pool:
    """What filter saw and decided: tables in order of the ids, the rules that were asked."""

    images: pa.Table
    detections: pa.Table
    scores: pa.Table
    filtered: Artifact
    ids: list[str]
    columns: dict[str, Any]  # float64 [N] by measurement

    @property
    def config(self) -> FilterConfig:
        """The thresholds of that run."""
        return FilterConfig(**self.filtered.manifest.config)


def pool_of(store: Store, reference: str = "filtered") -> Pool:
    """The pool behind a version of `filtered`. Raises ArtifactError without one."""
    filtered = store.find(reference)
    if filtered.kind != "filtered":
        raise ArtifactError(f"{filtered} is no version of filtered; name one with --input filtered=VERSION")
    images = narrow(_input(store, filtered, "images"))
    detections, scores = (_input(store, filtered, role).read() for role in ("detections", "scores"))
    config = FilterConfig(**filtered.manifest.config)
    measures = measure(images, detections, scores, config)
    images, detections, scores = (rows_for(t, measures.image_ids, "audit") for t in (images, detections, scores))
    return Pool(images, detections, scores, filtered, measures.image_ids, measures.columns)


def _input(store: Store, artifact: Artifact, role: str) -> Artifact:
    (ref,) = [ref for ref in artifact.manifest.inputs if ref.role == role]
    return store.get(ref.kind, ref.version)


def rule_sample(store: Store, pool: Pool, rule: str, *, labels: int, bands: int, seed: int) -> tuple[str, str]:
    """(id of the audit, page) of pictures over the bands of a rule's score. Raises ValueError for an unknown rule."""
    known = {each.name: each for each in rules(pool.config) if each.kind != "never"}
    if rule not in known:
        raise ValueError(f"there is no rule {rule!r} with a threshold in {pool.filtered}; it has {', '.join(known)}")
    chosen = known[rule]
    strata = by_score(pool.ids, pool.columns[chosen.column], labels, bands, seed)
    spec = _spec("rule", pool.filtered, pool.ids, strata, seed) | {
        "rule": rule,
        "column": chosen.column,
        "bound_kind": chosen.kind,
        "bound": chosen.bound,
        "values": {pool.ids[row]: float(pool.columns[chosen.column][row]) for s in strata for row in s.rows},
    }
    question, answers = yes_no(QUESTIONS.get(rule, f"Should it stay, as far as {rule!r} goes?"))
    lookup = ImageLookup(_input(store, pool.filtered, "images"))
    return _page(lookup, _flagged(pool), spec, f"Audit: {rule.replace('_', ' ')}", question, answers)


def attribute_sample(store: Store, selection: Artifact, axis: str, *, labels: int, seed: int) -> tuple[str, str]:
    """(id of the audit, page) of pictures over the bins of an attribute, of those that balance chose among.

    Raises ValueError for an unknown axis.
    """
    table = selection.read("attributes")
    axes = sorted(set(table["axis"].to_pylist()))
    if axis not in axes:
        raise ValueError(f"there is no attribute {axis!r} in {selection}; choose among {', '.join(axes)}")
    rows = sorted((row["image_id"], row["bin"]) for row in table.to_pylist() if row["axis"] == axis)
    ids, names = [i for i, _ in rows], [name for _, name in rows]
    strata = by_name(ids, names, labels, seed)
    spec = _spec("attribute", selection, ids, strata, seed) | {
        "axis": axis,
        "bins": [s.name for s in strata],
        "population": {s.name: s.population for s in strata},
        "measured": {ids[row]: s.name for s in strata for row in s.rows},
    }
    scores = _input(store, selection, "scores").read(columns=["image_id", "nsfw"]).to_pylist()
    flagged = {row["image_id"] for row in scores if (row["nsfw"] or 0.0) >= BLUR_NSFW}
    lookup = ImageLookup(_input(store, selection, "images"))
    return _page(lookup, flagged, spec, f"Audit: {axis.replace('_', ' ')}", *choices(axis, spec["bins"]))


def _spec(kind: str, of: Artifact, ids: list[str], strata: list[Stratum], seed: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "artifact": repr(of),
        "seed": seed,
        "strata": [{"name": s.name, "population": s.population, "low": s.low, "high": s.high} for s in strata],
        "stratum": {ids[row]: index for index, s in enumerate(strata) for row in s.rows},
    }


def _page(
    lookup: ImageLookup,
    flagged: set[str],
    spec: dict[str, Any],
    title: str,
    question: str,
    answers: list[dict[str, str]],
) -> tuple[str, str]:
    name = hashlib.sha256(canonical_json(spec)).hexdigest()[:12]
    ids = sorted(spec["stratum"], key=lambda i: hashlib.sha256(f"{name}/{i}".encode()).digest())  # bands mixed
    encoded, pictures = lookup.encoded(ids), []
    for image_id in ids:
        jpeg = thumbnail(encoded[image_id], max_side=LABEL_PX)
        if jpeg is not None:
            hidden = image_id in flagged
            pictures.append(Shown(image_id, blurred(jpeg) if hidden else jpeg, image_id[:12] + " · blurred" * hidden))
    return name, label_page({"id": name, **spec}, title, question, answers, pictures)


def _flagged(pool: Pool) -> set[str]:
    """Pictures that are blurred: scored as unsafe, or dropped for it."""
    rows = pool.filtered.read(columns=["image_id", "reason"]).to_pylist()
    scored = {i for i, score in zip(pool.ids, floats(pool.scores["nsfw"]), strict=True) if score >= BLUR_NSFW}
    return scored | {row["image_id"] for row in rows if row["reason"] == "unsafe"}
