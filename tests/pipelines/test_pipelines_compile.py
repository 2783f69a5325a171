"""The pipelines as KFP IR: deterministic, valid, and the same wiring as the table of steps."""

import subprocess
import sys

import pytest
import yaml

from components.kfp import COMPONENTS
from components.steps import STEPS, pipeline_steps
from pipelines.compile import check_ir, compile_pipeline

EVERY = ["curation", "training", "full", *(f"stage:{name}" for name in STEPS if name != "report")]


def tasks(path):
    return next(iter(yaml.safe_load_all(path.read_text())))["root"]["dag"]["tasks"]


@pytest.mark.parametrize("name", EVERY)
def test_every_pipeline_compiles_to_valid_ir(name, tmp_path):
    path = compile_pipeline(name, tmp_path / "out.yaml")
    assert path.stat().st_size > 1000
    for task in tasks(path).values():
        assert "cachingOptions" not in task or not task["cachingOptions"].get("enableCache")


def test_compiling_in_another_process_gives_the_same_bytes(tmp_path):
    here = compile_pipeline("full", tmp_path / "here.yaml").read_bytes()
    command = [sys.executable, "-m", "pipelines.cli", "compile", "full", "--out", str(tmp_path / "there.yaml")]
    subprocess.run(command, check=True, capture_output=True, env={"PYTHONHASHSEED": "7", "HOME": str(tmp_path)})
    assert (tmp_path / "there.yaml").read_bytes() == here


def test_a_misspelt_field_of_the_ir_is_refused(tmp_path):
    path = compile_pipeline("stage:filter", tmp_path / "ir.yaml")
    path.write_text(path.read_text().replace("executorLabel", "executorLable"))
    with pytest.raises(ValueError, match="not a pipeline specification"):
        check_ir(path)


def test_an_unknown_pipeline_is_named(tmp_path):
    with pytest.raises(ValueError, match="unknown pipeline 'everything'"):
        compile_pipeline("everything", tmp_path / "x.yaml")


@pytest.mark.parametrize("family", sorted({step.family for step in STEPS.values()}))
def test_components_say_what_the_table_of_steps_says(family):
    component, step = COMPONENTS[family], next(s for s in STEPS.values() if s.family == family)
    spec = component.component_spec
    artifacts = {name for name, given in spec.inputs.items() if given.type.startswith("system.")}
    assert artifacts == {read.role for read in step.inputs}
    optional = {name for name in artifacts if spec.inputs[name].optional}
    assert optional == {read.role for read in step.inputs if not read.always}
    assert {"root", "settings", "code_version"} <= set(spec.inputs)
    assert ("task" in spec.inputs) == bool(step.task)
    assert "facts" in spec.outputs


@pytest.mark.parametrize(("name", "only"), [("full", None), ("curation", "curation")])
def test_wiring_of_a_pipeline_is_that_of_the_table(name, only, tmp_path):
    compiled = tasks(compile_pipeline(name, tmp_path / "ir.yaml"))
    by_display = {task["taskInfo"]["name"]: (key, task) for key, task in compiled.items()}
    steps = pipeline_steps(only)
    assert set(by_display) == {step.name for step in steps}
    key_of = {display: key for display, (key, _) in by_display.items()}
    for step in steps:
        given = by_display[step.name][1]["inputs"].get("artifacts", {})
        producers = {role: source["taskOutputArtifact"]["producerTask"] for role, source in given.items()}
        expected = {read.role: key_of[read.producer] for read in step.inputs if read.producer in key_of}
        assert producers == expected


def test_two_trainings_never_run_at_the_same_time(tmp_path):
    """Each training step depends, directly or not, on the one before it."""
    compiled = tasks(compile_pipeline("full", tmp_path / "ir.yaml"))
    display = {key: task["taskInfo"]["name"] for key, task in compiled.items()}

    def before(key):
        found = set()
        for parent in compiled[key].get("dependentTasks", []):
            found |= {parent} | before(parent)
        return found

    trainings = [key for key in compiled if display[key].startswith(("pretrain", "finetune"))]
    for one in trainings:
        for other in trainings:
            assert one == other or one in before(other) or other in before(one)
