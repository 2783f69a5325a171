"""The table of steps: it loads, it is ordered, and no step's source changes unnoticed."""

import pytest

from components import step_sources
from components.settings import Settings
from components.steps import STEPS, load, pipeline_steps


@pytest.mark.parametrize("step", STEPS.values(), ids=lambda step: step.name)
def test_what_a_row_names_exists(step):
    assert issubclass(type(Settings().config(step)), load(step.config))
    assert callable(load(step.body))
    if step.weights:
        assert callable(load(step.weights))
    assert step.sources and step_sources.source_hash(step)


@pytest.mark.parametrize("only", [None, "curation", "training"])
def test_steps_come_after_what_they_read(only):
    made = {"export"} if only == "training" else set()
    for step in pipeline_steps(only):
        assert {read.producer for read in step.inputs if not read.optional} <= made
        made.add(step.name)


def test_no_source_changed_without_a_revision_or_a_reason():
    changed = step_sources.changed()
    assert not changed, (
        f"the source of {', '.join(changed)} changed: raise the revision in components/steps.py if outputs differ, "
        'then run `python -m components.step_sources "why"`'
    )


def test_a_change_of_code_is_seen_and_one_of_words_is_not(tmp_path, monkeypatch):
    module = tmp_path / "stage_under_test.py"
    monkeypatch.setattr(step_sources, "_files", lambda name: iter([module]))
    hashes = []
    for text in ('"""Doc."""\nx = 1\n', '"""Other words."""\n# why\nx = 1\n', "x = 2\n"):
        module.write_text(text)
        hashes.append(step_sources.source_hash(STEPS["filter"]))
    assert hashes[0] == hashes[1] != hashes[2]
