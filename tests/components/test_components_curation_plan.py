"""The plan of a curation: arithmetic by hand, rates of one's own run, and the shipped table itself."""

import json

import pyarrow as pa
import pytest
from click.testing import CliRunner
from removal_roots import commit

from components.artifacts import Store
from components.curation_plan import ORDER, PROFILES, Rate, Rates, largest_pool, measured, plan, shipped
from pipelines.cli import cli


def rates(**changes):
    same = {name: Rate(0.0, "given") for name in ORDER}
    return Rates(same | changes, image_bytes=100_000.0, hardware="paper")


def of(steps, name):
    (found,) = [step for step in steps if step.step == name]
    return found


def test_hours_by_hand():
    chosen = rates(
        ingest=Rate(0.01, "a", kept=0.5, stored_bytes=80_000),
        detect=Rate(0.2, "b", kept=1.0),
        score=Rate(0.1, "c", gpu_seconds=0.01),
        filter=Rate(1e-5, "d", memory_bytes=1000, kept=0.5),
        dedup=Rate(1e-3, "e", at_rows=1e5, exponent=1.1, memory_bytes=2000),
    )
    steps = plan(chosen, 7_200_000, cpus=10, gpus=2, network_gbit=1)
    ingest = of(steps, "ingest")
    assert ingest.core_hours == pytest.approx(20) and ingest.stored == pytest.approx(5.76e11)
    assert (ingest.bound, ingest.hours) == ("cpu", pytest.approx(2.0))  # 7.2e11 bytes at 1.25e8 a second are 1.6 hours
    slow = of(plan(chosen, 7_200_000, cpus=10, gpus=2, network_gbit=0.5), "ingest")
    assert (slow.bound, slow.hours) == ("network", pytest.approx(3.2))
    assert of(steps, "detect").core_hours == pytest.approx(200) and of(steps, "detect").hours == pytest.approx(20)
    score = of(steps, "score")
    assert (score.core_hours, score.gpu_hours, score.hours) == tuple(map(pytest.approx, (100, 10, 10)))
    assert score.bound == "cpu"
    filtered = of(steps, "filter")
    assert (filtered.bound, filtered.hours) == ("one process", pytest.approx(0.01))  # however many cores there are
    dedup = of(steps, "dedup")
    assert dedup.rows == 1_800_000
    assert dedup.core_hours == pytest.approx(0.5 * 18**0.1)
    assert largest_pool(chosen, 1e9) == pytest.approx(min(1e9 / 1000 / 0.5, 1e9 / 2000 / 0.25))


def test_hashes_are_shuffled_when_there_are_many():
    few, many = (of(plan(rates(), n, cpus=100), "hashes") for n in (1e6, 1e9))
    assert few.bound == "one process" and few.shuffled == 0 and few.memory > 0
    assert many.bound == "cpu" and many.shuffled >= 16 * 1e9 and many.hours == pytest.approx(many.core_hours / 100)


@pytest.mark.parametrize(("rows", "seconds"), [(8_066, 0.20), (81_123, 3.02), (810_253, 93.78)])
def test_hashes_take_what_was_measured(rows, seconds):
    assert 0.65 < of(plan(rates(), rows, cpus=1), "hashes").hours * 3600 / seconds < 1.5


def test_what_makes_no_plan_is_said():
    with pytest.raises(ValueError, match="a plan needs pictures and cores"):
        plan(rates(), 0, cpus=1)
    with pytest.raises(ValueError, match="a plan needs pictures and cores"):
        plan(shipped("builtin"), float("nan"), cpus=1)
    with pytest.raises(ValueError, match="detect of this profile needs a GPU; give --gpus"):
        plan(rates(detect=Rate(0.1, "x", gpu_seconds=0.1)), 10, cpus=1)
    with pytest.raises(ValueError, match="unknown profile 'huge'"):
        shipped("huge")


def test_rates_of_ones_own_run_take_the_place_of_the_table(tmp_path):
    store = Store(str(tmp_path))
    with pytest.raises(ValueError, match="there is no run under"):
        measured(store, rates())
    made = commit(
        *(tmp_path, "detections", {}),
        metrics={"rows_in": 4000, "kept": 4000, "seconds": 100.0, "dropped": {}},
        config={"workers": 4},
    )
    store.tag("latest/detections", made)
    own = measured(store, rates(detect=Rate(9.0, "table"), score=Rate(7.0, "table")))
    assert (
        own.steps["detect"].core_seconds == pytest.approx(0.1)
        and "4000 rows on 4 worker(s)" in own.steps["detect"].source
    )
    assert own.steps["score"].core_seconds == 7.0


def test_what_a_small_run_took_to_start_is_no_rate(tmp_path):
    """A filter of 52 pictures takes a second; a million take three, not six hours."""
    store = Store(str(tmp_path))
    counts = {"rows_in": 52, "kept": 13, "seconds": 1.0, "dropped": {"blurred": 39}}
    store.tag("latest/filtered", commit(tmp_path, "filtered", {"p": {"data": pa.table({"x": [1]})}}, metrics=counts))
    table = rates(filter=Rate(3e-6, "table", at_rows=1e6, stored_bytes=9.0))
    own = measured(store, table)
    assert (own.steps["filter"].core_seconds, own.steps["filter"].at_rows) == (3e-6, 1e6)
    assert own.steps["filter"].kept == 0.25 and own.steps["filter"].stored_bytes == 9.0
    assert "its 1.0 s are too few beside its start" in own.steps["filter"].source


@pytest.mark.parametrize("profile", PROFILES)
def test_the_shipped_table_names_a_source_for_every_rate(profile):
    table = shipped(profile)
    for name, rate in table.steps.items():
        assert rate.core_seconds > 0 and 0 < rate.kept <= 1 and rate.source, name
        assert 0.8 <= rate.exponent <= 2, name
    assert (table.steps["detect"].gpu_seconds > 0) == (profile == "full")


def test_the_command_says_what_dominates_and_what_does_not_fit():
    line = ["plan", "curate", "--images", "4e9", "--gpus", "64", "--cpus", "4096", "--profile", "full"]
    shown = CliRunner().invoke(cli, line)
    assert shown.exit_code == 0, shown.output
    assert "dominates" in shown.output and "does not fit" in shown.output and "TB" in shown.output
    made = json.loads(CliRunner().invoke(cli, [*line, "--json"]).output)
    assert [step["step"] for step in made["steps"]] == [*ORDER[:4], "hashes", *ORDER[4:]]
    assert made["steps"][0]["rows"] == 4e9
    twice = json.loads(CliRunner().invoke(cli, [*line[:3], "8e9", *line[4:], "--json"]).output)
    assert twice["steps"][1]["hours"] == pytest.approx(2 * made["steps"][1]["hours"])
