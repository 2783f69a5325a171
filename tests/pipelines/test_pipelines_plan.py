"""`sapiens2 plan train` and `sapiens2 doctor`: tables for people, JSON for programs, a line to act on."""

import json
from pathlib import Path

import pytest
from micro_runs import sapiens2, sapiens2_here


def test_a_plan_for_people_and_for_programs(tmp_path):
    command = ("plan", "train", "--recipe", "0.1b-256", "--gpu", "h100", "--mfu", "0.25")
    shown = sapiens2_here(*command, cwd=tmp_path).stdout
    for text in ("8,000 of 256 images", "FLOPs per image", "student", "teacher", "memory per GPU", "moments", "days"):
        assert text in shown
    assert "fits into the 79 GiB of a h100" in shown
    made = json.loads(sapiens2_here("plan", "train", "--recipe", "0.1b-256", "--json", cwd=tmp_path).stdout)
    parts = made["flops_per_image"]
    assert parts["total"] == sum(parts[name] for name in ("student", "teacher", "decoder", "heads"))
    assert made["fits"] and made["memory_per_gpu"]["total"] < made["room_per_gpu"]
    wider = json.loads(
        sapiens2_here(
            *("plan", "train", "--recipe", "0.1b-256", "--set", "pretrain.batch=512", "--gpus", "2", "--json"),
            cwd=tmp_path,
        ).stdout
    )
    assert wider["images"] == 2 * made["images"] and wider["gpu_hours"] > made["gpu_hours"]


def test_recipes_are_listed_and_unknown_ones_refused(tmp_path):
    listed = sapiens2_here("plan", "train", cwd=tmp_path).stdout
    assert "0.1b-256" in listed and "1b-2k-output" in listed and "starts from" in listed
    wrong = sapiens2("plan", "train", "--recipe", "2b", cwd=tmp_path, check=False)
    assert wrong.returncode == 2 and "unknown recipe '2b'; choose one of micro" in wrong.stderr
    for command in (("plan", "train"), ("doctor", "train")):
        both = sapiens2_here(*command, "--recipe", "0.1b-256", "--size", "5b", cwd=tmp_path, check=False)
        assert both.returncode == 2 and "--recipe and --size both name a recipe" in both.stderr


def test_what_does_not_fit_gets_a_mend(tmp_path):
    shown = sapiens2_here("plan", "train", "--size", "5b", "--gpu", "a100", "--gpus", "2", cwd=tmp_path).stdout
    assert "does not fit" in shown and "try --checkpointing selective" in shown  # elementwise would not fit either


def test_a_plan_of_fine_tuning():
    from click.testing import CliRunner

    from pipelines.plan_finetune import finetune_command

    def asked(*arguments):
        return CliRunner().invoke(finetune_command, arguments, env={"COLUMNS": "160"}, catch_exceptions=False).output

    listed = asked()
    assert "learning rate" in listed and "50,000" in listed
    drawn = asked("--transforms", "--task", "pose", "--set", 'finetune.augment={"rotate": {"degrees": 30}}')
    assert "half_body" in drawn and "degrees 30.0" in drawn and "share 0.16" in drawn
    full, frozen, lora = json.loads(asked("--task", "pose", "--size", "0.1b", "--json"))
    assert [row["mode"] for row in (full, frozen, lora)] == ["full", "frozen", "lora"]
    assert full["weights"] == 4 * full["trained_parameters"] and full["gradients_and_moments"] == 3 * full["weights"]
    assert 0 < full["largest_batch_per_gpu"] < frozen["largest_batch_per_gpu"]
    with pytest.raises(ValueError, match="unknown GPU 'b99'; choose one of h200"):
        asked("--task", "pose", "--gpu", "b99")
    with pytest.raises(ValueError, match="no_such"):
        asked("--task", "pose", "--set", "finetune.no_such=1")


def test_the_memory_table_of_the_docs_is_what_the_command_says():
    from components.steps import TASKS
    from pipelines.plan_finetune import SIZES, memory_rows
    from sapiens2.pretrain.budget import GPUS

    lines = (Path(__file__).parents[2] / "docs/finetuning.md").read_text().splitlines()
    cells = [tuple(line.strip("| ").split(" | ")) for line in lines]
    told = {row[:3]: row[3:] for row in cells if len(row) == 8 and row[0] in TASKS and row[1] in SIZES}
    assert len(told) == 24
    parts = ("weights", "gradients_and_moments", "activations_per_picture", "total")
    for task, size in (("normal", "0.1b"), ("pointmap", "1b")):  # all of them would take ten seconds
        for row in memory_rows((task,), (size,), "release", GPUS["h200"].memory, 1, 16):
            numbers = (f"{row['trained_parameters'] / 1e6:.0f} M", *(f"{row[part] / 1e9:.1f}" for part in parts))
            assert told[task, size, row["mode"]] == numbers


def test_the_doctor_looks_at_the_machine(tmp_path):
    done = sapiens2("doctor", "--no-ray", root=tmp_path / "root", cwd=tmp_path)
    for text in ("Python", "torch", "memory", "disk", "Chromium", "networks", "works here"):
        assert text in done.stdout
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "yolox_nano_416_coco.onnx").write_bytes(b"not these bytes")
    places = {"SAPIENS2_MODELS": str(tmp_path / "models"), "SAPIENS2_CACHE": str(tmp_path)}
    sick = sapiens2_here("doctor", "--no-ray", root=tmp_path / "root", cwd=tmp_path, check=False, **places)
    assert sick.returncode == 1 and "yolox_nano" in sick.stdout and "sapiens2 models verify" in sick.stdout


def test_the_doctor_measures_training(tmp_path):
    arguments = ("doctor", "train", "--size", "micro", "--batch", "4", "--steps", "2")
    shown = sapiens2(*arguments, cwd=tmp_path).stdout
    for text in ("one block, forward and backward", "one step", "images a second", "waiting for data", "predicted"):
        assert text in shown
    assert "ready to train" in shown or "do this:" in shown
    odd = sapiens2_here("doctor", "train", "--size", "micro", "--batch", "7", "--steps", "2", cwd=tmp_path, check=False)
    assert odd.returncode == 0  # one group of seven
    prime = sapiens2_here("doctor", "train", "--size", "micro", "--batch", "11", cwd=tmp_path, check=False)
    assert prime.returncode == 2 and "does not divide into KoLeo groups" in prime.stderr
