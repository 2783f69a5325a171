"""filter: thresholds to decisions, one declarative list of named rules.

Each rule holds one measured column against one bound; the first rule that a picture fails is its reason. A picture in
which a rule's column was not measured passes that rule, and the metrics say for how many that was so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from curation.config import Config, execution, recipe
from curation.stages.filter_report import fragment
from curation.stages.measures import Measures, measure
from curation.stages.result import StageResult, decision_metrics
from curation.tables import DECISIONS, require_columns

__all__ = ["FilterConfig", "Rule", "profile_config", "rules", "run"]


class FilterConfig(Config):
    """What a picture must have to stay. A bound of None turns its rule off."""

    min_person_px: int = recipe(384, "short side of the largest accepted person box, in original pixels", ge=1)
    min_person_score: float = recipe(0.5, "detector score from which a box counts as a person, 0..1", ge=0, le=1)
    max_aspect: float | None = recipe(3.0, "long side over short side of the picture, no unit", ge=1)
    min_sharpness: float | None = recipe(0.28, "sharpness score (1 - perceptual blur), 0..1", ge=0, le=1)
    min_exposure: float | None = recipe(0.04, "mean luminance, 0..1", ge=0, le=1)
    max_exposure: float | None = recipe(0.96, "mean luminance, 0..1", ge=0, le=1)
    min_contrast: float | None = recipe(0.05, "contrast score (deviation of the luminance / 127.5), 0..1", ge=0, le=1)
    max_flatness: float | None = recipe(0.9, "share of the picture without texture, 0..1", ge=0, le=1)
    min_realism: float | None = recipe(0.5, "realism score, 0 drawn or rendered .. 1 photograph", ge=0, le=1)
    max_text_ratio: float | None = recipe(0.02, "share of the picture covered by text overlays, 0..1", ge=0, le=1)
    max_text_person_overlap: float | None = recipe(
        0.10, "share of the largest person box covered by text overlays, 0..1", ge=0, le=1
    )
    min_aesthetic: float | None = recipe(None, "LAION aesthetic score, about 1..10", ge=0, le=10)
    max_nsfw: float | None = recipe(None, "probability of unsafe content, 0..1", ge=0, le=1)
    blocked_licences: tuple[str, ...] = recipe((), "licences to drop, as texts, compared without regard to case")
    allowed_licences: tuple[str, ...] = recipe((), "if any are named, drop known licences not among them, as texts")

    provenance: dict[str, str] = execution(
        {}, "where bounds of your own come from, field -> text, as `sapiens2 audit calibrate` writes it"
    )

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> Self:
        if self.min_exposure is not None and self.max_exposure is not None and self.min_exposure >= self.max_exposure:
            raise ValueError(
                f"min_exposure={self.min_exposure} is not below max_exposure={self.max_exposure}: nothing would pass"
            )
        both = {x.casefold() for x in self.blocked_licences} & {x.casefold() for x in self.allowed_licences}
        if both:
            raise ValueError(f"licences {sorted(both)} are both blocked and allowed; remove them from one list")
        return self


def profile_config(profile: str) -> FilterConfig:
    """The thresholds of a profile: detectors and scorers differ in what their numbers mean."""
    if profile == "full":
        return FilterConfig(max_text_ratio=0.04, min_aesthetic=4.5, max_nsfw=0.5)
    if profile == "small":
        return FilterConfig(min_person_score=0.56, max_text_ratio=0.04)
    return FilterConfig()


@dataclass(frozen=True)
class Rule:
    """`column` must be >= (min) or <= (max) `bound`, or (never) must not be true. `provenance`: where it comes from."""

    name: str  # the reason of the pictures that fail it
    column: str
    kind: Literal["min", "max", "never"]
    bound: float
    provenance: str

    def fails(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the values break the rule; NaN (not measured) never does."""
        if self.kind == "min":
            return values < self.bound
        return values > self.bound


Bound = Callable[[FilterConfig], float | None]
_PRIOR = "prior: "
_FITTED = "fitted on the fit half of the labelled pool"
# Where a bound comes from when it has this very value; with another one it was set by hand.
_CALIBRATED: dict[str, dict[float, str]] = {
    "person_score": {0.5: f"{_FITTED} (0.498), builtin", 0.56: f"{_FITTED} (0.563), YOLOX-nano"},
    "realism": {0.5: f"{_FITTED}: 5 % of its photographs, cross-validated"},
    "text_ratio": {0.02: f"{_FITTED} (0.0186), builtin", 0.04: f"{_FITTED} (0.0398), PP-OCR"},
    "sharpness": {0.28: "below every person photograph of the fit half (0.346); a blur of 3 px gives 0.26"},
}
# In the order in which they are asked: what the picture is of, then what it is, then how good it is.
_RULES: tuple[tuple[str, str, Literal["min", "max", "never"], Bound, str], ...] = (
    ("licence", "licence_refused", "never", lambda c: 0.0, "the user's lists of licences"),
    ("no_person", "person_score", "min", lambda c: c.min_person_score, _FITTED),
    ("person_too_small", "person_px", "min", lambda c: float(c.min_person_px), "Sapiens2 section 3.1: 384 px"),
    ("not_scored", "unscored", "never", lambda c: 0.0, "score.gate held the picture back; lower the gate to admit it"),
    ("extreme_aspect", "aspect", "max", lambda c: c.max_aspect, _PRIOR + "DataComp, aspect below 3"),
    ("not_realistic", "realism", "min", lambda c: c.min_realism, _FITTED),
    ("text_overlay", "text_ratio", "max", lambda c: c.max_text_ratio, _FITTED),
    ("text_on_person", "text_person_overlap", "max", lambda c: c.max_text_person_overlap, _PRIOR + "audit band"),
    ("unsafe", "nsfw", "max", lambda c: c.max_nsfw, _PRIOR + "NeMo Curator and data-juicer, 0.5"),
    ("flat", "flatness", "max", lambda c: c.max_flatness, _PRIOR + "nine tenths of the picture without texture"),
    ("too_dark", "exposure", "min", lambda c: c.min_exposure, _PRIOR + "visual check"),
    ("too_bright", "exposure", "max", lambda c: c.max_exposure, _PRIOR + "visual check"),
    ("low_contrast", "contrast", "min", lambda c: c.min_contrast, _PRIOR + "visual check"),
    ("blurred", "sharpness", "min", lambda c: c.min_sharpness, _FITTED),
    ("low_aesthetic", "aesthetic", "min", lambda c: c.min_aesthetic, _PRIOR + "training pools keep 4.5 to 5"),
)


def rules(config: FilterConfig) -> list[Rule]:
    """The rules that `config` turns on, in the order in which they are asked."""
    built, usual = [], FilterConfig()
    for name, column, kind, bound, source in _RULES:
        value = bound(config)
        if value is not None:
            known = config.provenance.get(f"{kind}_{column}") or _CALIBRATED.get(column, {}).get(value)
            provenance = known or (source if value == bound(usual) else "set by hand")
            built.append(Rule(name, column, kind, value, provenance))
    return built


def run(images: pa.Table, detections: pa.Table, scores: pa.Table, config: FilterConfig) -> StageResult:
    """One decision per row of `images`, sorted by image_id.

    `value` and `threshold` are those of the rule that failed; for kept pictures the short side of the largest person
    and its bound. Raises ValueError for missing columns or images without a row of detections and scores.
    """
    require_columns(images, ["image_id", "width", "height", "licence"], "filter")
    measures = measure(images, detections, scores, config)
    active = rules(config)
    first = _first_failures(measures, active)
    table = _decisions(measures, active, first, config)
    metrics = decision_metrics(table) | {
        "rules": [{"name": r.name, "column": r.column, "bound": r.bound, "provenance": r.provenance} for r in active],
        "not_measured": {
            r.column: int(np.isnan(measures.columns[r.column]).sum())
            for r in active
            if np.isnan(measures.columns[r.column]).any()
        },
    }
    return StageResult({"data": table}, metrics, fragment(measures, active, metrics))


def _first_failures(measures: Measures, active: list[Rule]) -> NDArray[np.int64]:
    """Index of the first rule that each row fails, -1 where it fails none."""
    first = np.full(len(measures.image_ids), -1)
    for index, rule in reversed(list(enumerate(active))):
        first[rule.fails(measures.columns[rule.column])] = index
    return first


def _decisions(measures: Measures, active: list[Rule], first: NDArray[np.int64], config: FilterConfig) -> pa.Table:
    value = measures.columns["person_px"].copy()
    threshold = np.full(len(first), float(config.min_person_px))
    for index, rule in enumerate(active):
        failed = first == index
        value[failed], threshold[failed] = measures.columns[rule.column][failed], rule.bound
    names = pa.array([rule.name for rule in active], pa.string())
    columns = {
        "image_id": measures.image_ids,
        "keep": first < 0,
        "reason": names.take(pa.array(first, mask=first < 0)),
        "value": value,
        "threshold": threshold,
        "representative_id": pa.nulls(len(first), pa.string()),
    }
    return pa.table(columns, schema=DECISIONS)
