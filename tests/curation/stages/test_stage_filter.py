"""filter: each rule by itself at its bound, their order, nulls, and what kept rows carry."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from decision_tables import (
    detection_row,
    detections_table,
    image_row,
    images_table,
    picture_id,
    score_row,
    scores_table,
)

from curation.stages import filter
from curation.stages.filter import FilterConfig, profile_config, rules
from curation.stages.result import StageResult

STRICT = FilterConfig(min_aesthetic=5.0, max_nsfw=0.5, blocked_licences=("Proprietary",), allowed_licences=("CC-BY",))


def decide(
    image: dict[str, Any] | None = None,
    detection: dict[str, Any] | None = None,
    score: dict[str, Any] | None = None,
    config: FilterConfig = STRICT,
) -> dict[str, Any]:
    return run_rows([(image or {}, detection or {}, score or {})], config).tables["data"].to_pylist()[0]


def run_rows(rows: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]], config: FilterConfig) -> StageResult:
    images = images_table([image_row(k, **row[0]) for k, row in enumerate(rows)])
    detections = detections_table([detection_row(k, **row[1]) for k, row in enumerate(rows)])
    scores = scores_table([score_row(k, **row[2]) for k, row in enumerate(rows)])
    return filter.run(images, detections, scores, config)


def person(px: float, score: float = 0.9) -> dict[str, Any]:
    return {"boxes": [[10, 0, 10 + px, 2000]], "box_scores": [score], "refined": [False]}


# reason, the change that just passes, the change that just fails, what is reported
CASES: list[tuple[str, tuple[dict[str, Any], ...], tuple[dict[str, Any], ...], float, float]] = [
    ("licence", ({"licence": "cc-by "}, {}, {}), ({"licence": "proprietary"}, {}, {}), 1.0, 0.0),
    ("licence", ({"licence": None}, {}, {}), ({"licence": "CC-BY-NC"}, {}, {}), 1.0, 0.0),
    ("no_person", ({}, person(400, 0.5), {}), ({}, person(400, 0.25), {}), 0.25, 0.5),
    ("person_too_small", ({}, person(384), {}), ({}, person(383), {}), 383.0, 384.0),
    ("not_scored", ({}, {}, {"scored": True}), ({}, {}, {"scored": False}), 1.0, 0.0),
    ("extreme_aspect", ({"width": 1500, "height": 500}, {}, {}), ({"width": 500, "height": 2000}, {}, {}), 4.0, 3.0),
    ("not_realistic", ({}, {}, {"realism": 0.5}), ({}, {}, {"realism": 0.25}), 0.25, 0.5),
    ("text_overlay", ({}, {}, {"text_ratio": 0.01}), ({}, {}, {"text_ratio": 0.25}), 0.25, 0.02),
    ("text_on_person", ({}, {}, {"text_person_overlap": 0.06}), ({}, {}, {"text_person_overlap": 0.5}), 0.5, 0.10),
    ("unsafe", ({}, {}, {"nsfw": 0.5}), ({}, {}, {"nsfw": 0.75}), 0.75, 0.5),
    ("flat", ({}, {}, {"flatness": 0.875}), ({}, {}, {"flatness": 1.0}), 1.0, 0.9),
    ("too_dark", ({}, {}, {"exposure": 0.0625}), ({}, {}, {"exposure": 0.03125}), 0.03125, 0.04),
    ("too_bright", ({}, {}, {"exposure": 0.9375}), ({}, {}, {"exposure": 1.0}), 1.0, 0.96),
    ("low_contrast", ({}, {}, {"contrast": 0.0625}), ({}, {}, {"contrast": 0.0}), 0.0, 0.05),
    ("blurred", ({}, {}, {"sharpness": 0.5}), ({}, {}, {"sharpness": 0.125}), 0.125, 0.28),
    ("low_aesthetic", ({}, {}, {"aesthetic": 5.0}), ({}, {}, {"aesthetic": 4.5}), 4.5, 5.0),
]


@pytest.mark.parametrize(("reason", "passing", "failing", "value", "threshold"), CASES)
def test_each_rule_at_its_bound(
    reason: str, passing: tuple[Any, ...], failing: tuple[Any, ...], value: float, threshold: float
) -> None:
    assert decide(*passing)["keep"], "the bound itself passes"
    row = decide(*failing)
    assert (row["keep"], row["reason"], row["value"], row["threshold"]) == (False, reason, value, threshold)


def test_every_rule_is_tested() -> None:
    assert {rule.name for rule in filter.rules(STRICT)} == {case[0] for case in CASES}


def test_kept_rows_carry_the_size_of_their_person() -> None:
    row = decide({}, {"boxes": [[0, 0, 390, 500], [0, 0, 900, 410]], "box_scores": [0.9, 0.8], "refined": [False] * 2})
    assert (row["keep"], row["reason"], row["value"], row["threshold"]) == (True, None, 410.0, 384.0)
    weak = {"boxes": [[0, 0, 390, 500], [0, 0, 900, 900]], "box_scores": [0.9, 0.4], "refined": [False] * 2}
    assert decide({}, weak)["value"] == 390.0, "a box below the score is no person"


def test_the_first_failing_rule_is_the_reason() -> None:
    everything = {"realism": 0.0, "sharpness": 0.0, "text_ratio": 1.0}
    assert decide({}, {}, everything)["reason"] == "not_realistic"
    assert decide({}, {"boxes": [], "box_scores": [], "refined": []}, everything)["reason"] == "no_person"


def test_what_was_not_measured_is_not_held_against_a_picture() -> None:
    unknown = dict.fromkeys(("realism", "text_ratio", "sharpness", "exposure", "aesthetic", "nsfw"))
    result = run_rows([({}, {}, unknown), ({}, {}, {"realism": 0.0})], STRICT)
    reason = {row["image_id"]: row["reason"] for row in result.tables["data"].to_pylist()}
    assert reason == {picture_id(0): None, picture_id(1): "not_realistic"}
    assert result.metrics["not_measured"]["realism"] == 1
    assert result.metrics["not_measured"]["aesthetic"] == 2


def test_a_bound_of_none_turns_the_rule_off() -> None:
    assert decide({}, {}, {"realism": 0.0}, FilterConfig(min_realism=None))["keep"]
    assert "not_realistic" not in {rule.name for rule in filter.rules(FilterConfig(min_realism=None))}


def test_each_rule_says_where_its_bound_comes_from() -> None:
    result = run_rows([({}, {}, {})], STRICT)
    assert all(len(rule["provenance"]) > 5 for rule in result.metrics["rules"])
    table = next(s for s in result.fragment["sections"] if s["type"] == "table")  # type: ignore[index]
    assert [row[0] for row in table["rows"]] == [rule["name"] for rule in result.metrics["rules"]]


def test_the_funnel_of_the_report_ends_at_the_kept_rows() -> None:
    rows = [({}, {}, {"realism": k / 10}) for k in range(10)]
    result = run_rows(rows, STRICT)
    bars = result.fragment["sections"][0]  # type: ignore[index]
    assert bars["series"][0]["values"][0] == 10
    assert bars["series"][0]["values"][-1] == result.metrics["kept"] == 5
    histogram = next(s for s in result.fragment["sections"] if s["title"] == "not_realistic")  # type: ignore[index]
    assert sum(histogram["counts"]) == 10
    assert histogram["threshold"] == 0.5
    assert histogram["edges"][0] <= 0.0 and histogram["edges"][-1] >= 0.9


@pytest.mark.parametrize("repeated", ["images", "detections", "scores"])
def test_a_picture_with_two_rows_is_named(repeated: str) -> None:
    tables = {
        "images": images_table([image_row(k) for k in range(3)]),
        "detections": detections_table([detection_row(k) for k in range(3)]),
        "scores": scores_table([score_row(k) for k in range(3)]),
    }
    assert filter.run(*tables.values(), STRICT).metrics["rows_in"] == 3
    tables[repeated] = pa.concat_tables([tables[repeated], tables[repeated].slice(1, 1)])
    with pytest.raises(ValueError, match=f"1 rows repeat an image_id, the first is {picture_id(1)}"):
        filter.run(*tables.values(), STRICT)


def test_images_without_scores_are_an_error() -> None:
    images = images_table([image_row(0), image_row(1)])
    detections = detections_table([detection_row(0), detection_row(1)])
    with pytest.raises(ValueError, match=f"1 images have no row, the first is {picture_id(1)}"):
        filter.run(images, detections, scores_table([score_row(0)]), STRICT)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_exposure": 0.9, "max_exposure": 0.5}, "nothing would pass"),
        ({"blocked_licences": ("A",), "allowed_licences": ("a",)}, "both blocked and allowed"),
        ({"min_person_px": 0}, "greater than or equal to 1"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FilterConfig(**fields)


def test_provenance_says_what_was_fitted_what_is_a_prior_and_what_was_set_by_hand():
    fitted = {rule.name: rule.provenance for rule in rules(profile_config("small"))}
    by_hand = {rule.name: rule.provenance for rule in rules(FilterConfig(max_text_ratio=0.3, max_flatness=0.7))}
    assert "PP-OCR" in fitted["text_overlay"] and "fit half" in fitted["blurred"]
    assert fitted["flat"].startswith("prior")
    assert by_hand["text_overlay"] == by_hand["flat"] == "set by hand"
