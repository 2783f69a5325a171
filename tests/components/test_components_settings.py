"""Settings: every field has a role, overrides find their step, mistakes are named with the mend."""

import subprocess
import sys

import pytest
from pydantic import BaseModel

from components.settings import (
    PRESETS,
    PROFILES,
    Settings,
    SettingsError,
    parse_overrides,
    recipe_fields,
)
from components.steps import CURATION, STEPS, find_steps


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_step_has_a_configuration_whose_fields_all_have_a_role_and_a_description(profile, preset):
    for step in STEPS.values():
        config = Settings(profile=profile, preset=preset).config(step)
        recipe_fields(config)  # raises for a field without a role
        for name, info in type(config).model_fields.items():
            assert isinstance(getattr(config, name), BaseModel) or info.description, f"{step.name}.{name}"


def test_an_override_changes_one_field_and_travels_as_json():
    settings = Settings(overrides={"filter.min_person_px": 256})
    again = Settings.from_dict(settings.as_dict())
    assert again.config(STEPS["filter"]).min_person_px == 256
    assert again.config(STEPS["dedup"]) == Settings().config(STEPS["dedup"])


def test_a_family_addresses_all_tasks_and_a_step_one_of_them():
    settings = Settings(preset="micro", overrides={"finetune.scene_seed": 5, "finetune-pose.scene_seed": 6})
    seeds = {step.task: settings.config(step).scene_seed for step in find_steps("finetune")}
    assert seeds.pop("pose") == 6
    assert set(seeds.values()) == {5}


def test_execution_fields_never_enter_the_recipe():
    step = STEPS["ingest"]
    plain = recipe_fields(Settings().config(step))
    faster = recipe_fields(Settings(overrides={"ingest.rows_per_partition": 7}).config(step))
    other = recipe_fields(Settings(overrides={"ingest.min_side_px": 7}).config(step))
    assert plain == faster != other


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Settings(profile="huge"), "unknown profile 'huge'; choose one of builtin, small, full"),
        (lambda: Settings(preset="x"), "unknown preset 'x'"),
        (lambda: Settings(overrides={"filtre.a": 1}), "did you mean filter.a"),
        (lambda: Settings(overrides={"filter": 1}), "keys are STEP.FIELD"),
        (lambda: Settings(overrides={"filter.min_persn_px": 1}).check(CURATION), "did you mean 'min_person_px'"),
        (lambda: Settings(overrides={"balance.target_size": -3}).check(CURATION), "balance: target_size=-3 must be"),
        (lambda: Settings(overrides={"filter.min_person_px": "wide"}).check(CURATION), "filter.min_person_px"),
        (lambda: parse_overrides(("filter.min_person_px",)), "is not of the form step.field=value"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(SettingsError, match=message.replace(".", r"\.")):
        make()


def test_a_key_of_a_family_is_judged_by_those_that_run(tmp_path):
    """The background of a picture can be changed for tasks whose labels say where the person is, not for pose."""
    sources = [{"path": "synthetic", "backgrounds": str(tmp_path)}]
    settings = Settings(overrides={"finetune.augment": {"background": 0.5}, "finetune.sources": sources})
    settings.check([STEPS["finetune-segmentation"]])
    for steps in ([], [STEPS["finetune-pose"]], [STEPS["finetune-segmentation"], STEPS["finetune-pose"]]):
        with pytest.raises(SettingsError, match="finetune-pose: "):
            settings.check(steps)
    narrow = Settings(overrides={"finetune-pose.augment": {"background": 0.5}, "finetune-pose.sources": sources})
    with pytest.raises(SettingsError, match="finetune-pose: "):
        narrow.check([STEPS["finetune-segmentation"]])


def test_values_of_set_are_json_where_they_parse():
    parsed = parse_overrides(("a.b=1", "a.c=[1, 2]", "a.d=true", "a.e=text", "a.f=x=y"))
    assert parsed == {"a.b": 1, "a.c": [1, 2], "a.d": True, "a.e": "text", "a.f": "x=y"}


def test_unknown_steps_are_refused_with_the_list():
    with pytest.raises(ValueError, match="unknown step 'filterr'; the steps are ingest, detect"):
        find_steps("filterr")


def test_planning_loads_neither_torch_nor_ray():
    """The command line and every step that trains nothing would pay for it, more than a second."""
    code = """
import sys
from components.settings import Settings
from components.steps import STEPS
for step in STEPS.values():
    Settings().config(step)
print([name for name in ("torch", "ray", "kfp", "cv2", "polars", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_recipe_replaces_the_presets_pretraining_and_travels():
    chosen = Settings(preset="micro", recipe="0.1b-256", overrides={"pretrain.batch": 128, "pretrain.koleo_group": 8})
    config = Settings.from_dict(chosen.as_dict()).config(STEPS["pretrain"])
    assert (config.size, config.image_size, config.batch) == ("0.1b", (256, 192), 128)
    assert {chosen.config(step).size for step in find_steps("finetune")} == {"0.1b"}
    assert Settings(preset="micro").config(STEPS["pretrain"]).size == "tiny"
    with pytest.raises(SettingsError, match="unknown recipe '2b'; choose one of micro, tiny"):
        Settings(recipe="2b")
