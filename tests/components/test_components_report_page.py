"""The report page: everything a run has to tell is on it, it points nowhere outside, and it keeps its size."""

from __future__ import annotations

import re

import pytest
from report_samples import HOSTILE, every_section, fetched, manifest, noise_jpeg, parsed, small_run

from components.report_page import Measure, ReportInput, StepSummary, render_report


def report(**changes: object) -> ReportInput:
    run = small_run()
    names = ["ingest", "detect", "filter", "balance", "pretrain"]
    steps = [StepSummary(name, m, reused=name == "ingest") for name, m in zip(names, run, strict=True)]
    values = {"preset": "micro", "profile": "builtin", "date": "2025-01-02T03:04:05+00:00", "steps": steps, **changes}
    return ReportInput(**values)  # type: ignore[arg-type]


def with_pictures(count: int, side: int = 96) -> ReportInput:
    """Two steps with contact sheets of `count` and of 2 pictures."""
    run = small_run()
    sheets = [
        {
            "title": "Pictures",
            "sections": [
                {
                    "type": "images",
                    "title": "Sheet",
                    "items": [{"jpeg": noise_jpeg(i, side), "caption": f"{i}.jpg"} for i in range(n)],
                    "note": "A sample.",
                }
            ],
        }
        for n in (count, 2)
    ]
    return report(
        steps=[StepSummary("ingest", run[0], False, sheets[0]), StepSummary("detect", run[1], False, sheets[1])]
    )


def pictures(page: str) -> int:
    return sum(tag == "img" for tag, _ in parsed(page).tags)


def test_steps_funnel_measures_models_and_environment_are_told() -> None:
    model = {"name": "yolox_nano", "revision": "1", "sha256": "ab" * 32, "licence": "Apache-2.0"}
    run = small_run()
    steps = [
        StepSummary(
            "ingest",
            {**run[0], "metrics": {"rows_in": 562, "kept": 467, "dropped": {"too_small": 95}, "seconds": 3}},
            True,
        ),
        StepSummary("detect", {**run[1], "models": [model]}, False),
        StepSummary("score", manifest("score", "scores", run[:2], models=[model]), False),
        StepSummary("evaluate pose", manifest("evaluate", "evaluation", [run[4]]), False),
    ]
    page = render_report(
        report(steps=steps, measures=[Measure("pose", "AP", 0.5125, 0.41, 0.61, 16)], notes=["All were taken."])
    )
    text = " ".join("".join(parsed(page).text).split())
    for said in (
        "micro",
        "builtin",
        "562",
        "467",
        "95",
        "too small",
        "AP",
        "0.5125",
        "0.41 to 0.61",
        "All were taken.",
        "3.11.9",
    ):
        assert said in text, said
    assert text.count("yolox_nano") == 1 and "detect, score" in text
    assert "3 ran, 1 reused" in text
    assert run[1]["version"][:8] in text


def test_every_link_leads_somewhere_on_the_page_and_ids_are_unique() -> None:
    page = render_report(report(measures=[Measure("pose", "AP", 0.5)]))
    tags = parsed(page).tags
    ids = [str(a["id"]) for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = [str(a["href"]) for tag, a in tags if tag == "a"]
    assert len(links) > 10
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_the_page_fetches_nothing() -> None:
    page = render_report(with_pictures(3))
    assert all(address.startswith("data:image/jpeg;base64,") for address in fetched(page))
    assert not re.search(r"@import|url\(\s*['\"]?https?:|<iframe|<link", page)


def test_nothing_from_the_web_becomes_markup() -> None:
    def page(text: str) -> list[str]:
        made = manifest("ingest", "images", config={"pool": text}, environment={text: text})
        step = StepSummary("ingest", made, False, every_section(text))
        told = report(steps=[step], pool=text, title=text, notes=[text], measures=[Measure(text, text, 1.0, note=text)])
        seen = parsed(render_report(told))
        assert not any(name.startswith("on") for _, attributes in seen.tags for name in attributes)
        return [tag for tag, _ in seen.tags]

    assert page(HOSTILE) == page("plain words")


def test_too_large_a_page_loses_the_last_pictures_of_the_largest_sheet_and_says_so() -> None:
    whole = render_report(with_pictures(30))
    limit = len(whole.encode()) - 60_000
    page = render_report(with_pictures(30), max_bytes=limit)
    assert len(page.encode()) <= limit
    lost = pictures(whole) - pictures(page)
    assert 0 < lost < 30
    assert f"{lost} picture" in page and f"{lost} more picture" in page and "A sample." in page
    captions = re.findall(r'<img [^>]*alt="([^"]*)"', page)
    assert captions == [f"{i}.jpg" for i in range(30 - lost)] + ["0.jpg", "1.jpg"]
    per_picture = len(noise_jpeg(0))
    assert lost <= 60_000 / per_picture + 2


def test_nothing_is_lost_below_the_limit() -> None:
    page = render_report(with_pictures(5))
    assert pictures(page) == 7
    assert "left out" not in page


def test_a_page_too_large_without_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="without pictures; 5,000 are allowed"):
        render_report(with_pictures(3), max_bytes=5_000)


def test_a_fragment_that_cannot_be_drawn_names_its_step() -> None:
    step = StepSummary("filter", small_run()[2], False, {"title": "F", "sections": [{"type": "pie", "title": "P"}]})
    with pytest.raises(ValueError, match=r"step 'filter'.*'P'.*'pie'"):
        render_report(report(steps=[step]))


def test_a_run_of_training_only_has_no_funnel() -> None:
    step = StepSummary("pretrain", manifest("pretrain", "backbone", metrics={"seconds": 2.0}), False)
    page = render_report(report(steps=[step]))
    assert 'id="funnel"' not in page
    assert 'id="timings"' in page and 'id="lineage"' in page
