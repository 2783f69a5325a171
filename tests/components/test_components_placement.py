"""Placements: the narrower wins, what is wrong is named, and nothing secret goes into them."""

import pytest

from components.artifacts import Store
from components.placement import VARIABLE, Placement, PlacementError, Placements
from components.steps import STEPS
from components.storage import StorageError


def test_a_step_wins_over_its_family_and_that_over_the_default():
    placements = Placements(
        {"mode": "jobs", "cpus": 2}, {"finetune": {"cpus": 4, "gpus": 1}, "finetune-pose": {"gpus": 2}}
    )
    pose, albedo, score = (placements.of(STEPS[n]) for n in ("finetune-pose", "finetune-albedo", "score"))
    assert (pose.mode, pose.cpus, pose.gpus) == ("jobs", 4, 2)
    assert (albedo.cpus, albedo.gpus) == (4, 1)
    assert (score.cpus, score.gpus) == (2, 0)


def test_a_placement_reaches_its_step_through_the_environment(monkeypatch):
    assert Placement.from_environment() == Placement()
    place = Placement(mode="rayjob", image="i", secrets={"s": ("A", "B")}, node_selector={"a": "b"})
    monkeypatch.setenv(VARIABLE, place.to_json())
    assert Placement.from_environment() == place


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("default: {mode: nowhere}", "placement of ingest: mode: Input should be 'attach', 'jobs' or 'rayjob'"),
        ("default: {memory: lots}", "'lots' is no Kubernetes quantity"),
        ("default: {gpu: 1}", "gpu: Extra inputs are not permitted"),
        ("steps: {polish: {cpus: 1}}", "unknown step 'polish'"),
        (
            "steps: {score: {workers: 4, max_workers: 2}}",
            "placement of score: max_workers: max_workers=2 is below workers=4",
        ),
        ("default: {env: {AWS_SECRET_ACCESS_KEY: abc}}", "AWS_SECRET_ACCESS_KEY looks like a secret"),
        ("default: {env: {HF_TOKEN: abc}}", "put it into a Kubernetes secret"),
        ("placements: {}", "must have `default` and `steps`"),
        ("default: [", "is not YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, said):
    path = tmp_path / "placement.yaml"
    path.write_text(text)
    with pytest.raises(PlacementError) as error:
        Placements.from_yaml(path)
    assert said in str(error.value) and "abc" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PlacementError, match="there is no placement file"):
        Placements.from_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize("root", ["s3://AKIA:secret@bucket/x", "s3://bucket/x?access_key=AKIA&secret_key=s"])
def test_keys_in_a_roots_address_are_refused(root):
    """The address of a root travels in the parameters of pipelines and in the orders of jobs."""
    with pytest.raises(StorageError, match="keys do not belong") as error:
        Store(root)
    assert "AKIA" not in str(error.value)
