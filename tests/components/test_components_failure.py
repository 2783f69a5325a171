"""A step that fails ends with where it was, which picture it was, and the command that runs it again."""

import shlex

import pyarrow as pa
import pytest
from removal_roots import build_pool, commit, ingested

from components import job
from components.artifacts import Store
from components.failure import failing_picture, note, notes, rerun_command, rerun_note, told
from components.labels import ImportLabelsConfig
from components.run_step import run_step
from components.settings import Settings, parse_overrides
from components.steps import LABELS, STEPS

DETECT = STEPS["detect"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """(root, partition, source) of an `images` artifact in which the bytes of one picture are damaged."""
    folder = tmp_path_factory.mktemp("failure")
    parts = ingested(build_pool(folder / "pool"))
    pid = sorted(parts)[1]
    images = parts[pid]["images"]
    data = images["bytes"].to_pylist()
    data[2] = b"damaged"
    column = images.schema.get_field_index("bytes")
    parts[pid]["images"] = images.set_column(column, "bytes", pa.array(data, pa.large_binary()))
    commit(folder / "root", "images", parts)
    return str(folder / "root"), pid, images["source"][2].as_py()


def failed(root, workers):
    """What detecting on the planted pictures ends with."""
    settings = Settings("builtin", "micro", {"detect.workers": workers})
    images = Store(root).get("images", "6" * 16)
    with pytest.raises(ValueError, match="cannot be decoded") as caught:
        run_step(DETECT, settings.config(DETECT), {"images": images}, root)
    return caught.value


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stage_names_picture_partition_and_command(planted, workers):
    root, pid, source = planted
    error = failed(root, workers)
    assert type(error) is ValueError  # exit code 2, through Ray too
    picture, partition, again = notes(error)
    assert picture.endswith(f"({source})") and f"partition {pid};" in partition
    assert again.startswith(f"run it again: sapiens2 step detect --root {root} --input images={'6' * 16}")


def test_a_job_elsewhere_brings_the_same_words(planted, capsys):
    root, pid, source = planted
    order = job.Job("detect", root, {"overrides": {"detect.workers": 0}}, {"images": f"images={'6' * 16}"})
    order.hand_over()
    assert job.main(root, order.name) == 2
    last = capsys.readouterr().out.splitlines()[-3:]
    assert source in last[0] and pid in last[1] and last[2].startswith("run it again: sapiens2 step detect")
    with pytest.raises(job.JobFailed) as caught:
        order.outcome()
    assert str(caught.value).splitlines()[-3:] == last and caught.value.user


@pytest.mark.parametrize(
    ("step", "settings"),
    [
        ("detect", Settings()),
        ("filter", Settings("small", "micro", {"filter.min_person_px": 500})),
        ("balance", Settings(overrides={"balance.caps": {"head_pose": 0.5}})),
        ("pretrain", Settings("builtin", "micro", {"pretrain.engine.steps": 7, "pretrain.engine.lr": 1e-5})),
        ("finetune-pose", Settings(preset="micro", overrides={"finetune.engine.seed": 5})),
    ],
)
def test_the_command_gives_the_same_configuration(step, settings):
    config = settings.config(STEPS[step])
    words = shlex.split(rerun_command(STEPS[step], config, {}, "/a root"))
    assert words[:5] == ["sapiens2", "step", step, "--root", "/a root"]
    given = dict(zip(words[5::2], words[6::2], strict=True))
    pairs = tuple(value for name, value in zip(words[5::2], words[6::2], strict=True) if name == "--set")
    chosen = Settings(given.get("--profile", "builtin"), given.get("--preset", "demo"), parse_overrides(pairs))
    assert chosen.config(STEPS[step]) == config
    assert len(pairs) <= 2


def test_ingest_is_run_again_on_its_pool():
    command = rerun_command(STEPS["ingest"], Settings().config(STEPS["ingest"]), {}, "s3://b/r", "/my pool")
    assert command == "sapiens2 step ingest --root s3://b/r --pool '/my pool'"


@pytest.mark.parametrize(
    ("bad", "expected"), [({3}, "n3"), ({0}, "n0"), ({4}, "n4"), ({2, 3}, "n2"), (set(range(5)), ""), (set(), "")]
)
def test_one_picture_is_named_when_it_is_one_picture(bad, expected):
    images = pa.table({"image_id": [f"n{i}" for i in range(5)], "source": [f"{i}.jpg" for i in range(5)]})

    def work(one):
        if int(one["image_id"][0].as_py()[1:]) in bad:
            raise RuntimeError

    found = failing_picture(images, work)
    assert (f"{expected} ({expected[1:]}.jpg)" in found) if expected else found == ""


def test_notes_are_said_once_and_after_the_message():
    error = ValueError("no")
    note(error, "here", "", "here", "there")
    assert told(error) == "no\nhere\nthere" and told(KeyError()) == "KeyError"


def test_a_step_outside_the_pipelines_names_no_command() -> None:
    assert rerun_note(LABELS, ImportLabelsConfig(), {}, "root") == ""
    ingest = STEPS["ingest"]
    assert rerun_note(ingest, Settings().config(ingest), {}, "root").startswith("run it again: sapiens2 step ingest")
