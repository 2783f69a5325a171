"""Other backgrounds: only pixels outside the person change, colours move as Reinhard says, a seed says which."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sapiens2.data.synthetic import render
from sapiens2.evaluation.config import EvaluateConfig
from sapiens2.tasks import recipes
from sapiens2.tasks.augmentation import Background, augmentation
from sapiens2.tasks.backgrounds import Backgrounds, composed, cut, person_pixels, transferred
from sapiens2.tasks.config import DataSource, FinetuneConfig, data_digest
from sapiens2.tasks.sample import Sample, from_scene
from sapiens2.tasks.source import TaskSource

SIZE = (64, 48)
GREEN, BLUE = (30, 200, 40), (20, 30, 220)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of one colour each, of other shapes than a sample, and a file that is none."""
    for name, colour, shape in (("a.png", GREEN, (40, 90)), ("b.PNG", BLUE, (300, 50))):
        cv2.imwrite(str(tmp_path / name), np.full((*shape, 3), colour[::-1], np.uint8))
    (tmp_path / "licence.txt").write_text("ours")
    return tmp_path


def config(folder: Path, task: str = "segmentation", **change: object) -> FinetuneConfig:
    source = DataSource(backgrounds=str(folder))
    fields = recipes.micro(task).model_dump() | {"sources": (source,), "scenes": 8, "batch": 8}  # type: ignore[arg-type]
    return FinetuneConfig.model_validate(fields | {"augmentation": "none", "augment": {"background": 1.0}} | change)


def test_the_person_stays_and_the_rest_is_the_other_picture(folder: Path) -> None:
    sample = from_scene(render(3, *SIZE))
    person = person_pixels(sample)
    seen = set()
    for seed in range(8):
        got = Backgrounds(str(folder)).behind(sample, Background(tone=0, edge=0), np.random.default_rng(seed))
        assert (got.image[person] == sample.image[person]).all()
        behind = {tuple(colour) for colour in got.image[~person].tolist()}
        assert len(behind) == 1 and got.mask is sample.mask and got.normals is sample.normals
        seen |= behind
    assert seen == {GREEN, BLUE}


def test_unknown_pixels_stay_with_the_person() -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[10:20, 10:20], mask[30, 30] = 5, 255
    assert person_pixels(Sample(np.zeros((*SIZE, 3), np.uint8), mask=mask)).sum() == 101
    with pytest.raises(ValueError, match="neither a mask nor valid pixels"):
        person_pixels(Sample(np.zeros((*SIZE, 3), np.uint8)))


def test_colours_move_to_the_mean_and_spread_of_the_scene() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(110, 12, (40, 30, 3)).clip(0, 255).astype(np.uint8)
    scene = rng.normal((150, 120, 100), 6, (40, 30, 3)).clip(0, 255).astype(np.uint8)
    person = np.zeros((40, 30), bool)
    person[5:30, 5:25] = True
    lab = lambda x: cv2.cvtColor(x.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)  # noqa: E731
    wanted = lab(scene).reshape(-1, 3)
    for tone in (0.5, 1.0):
        got = lab(transferred(image, person, scene, tone))[person]
        before = lab(image)[person]
        np.testing.assert_allclose(got.mean(0), (1 - tone) * before.mean(0) + tone * wanted.mean(0), atol=0.3)
    np.testing.assert_allclose(got.std(0), wanted.std(0), rtol=0.05)
    np.testing.assert_allclose(transferred(image, person, scene, 0.0), image, atol=0.6)


def test_a_soft_edge_mixes_near_the_outline_only() -> None:
    person = np.zeros((40, 30), bool)
    person[:, :15] = True
    image, scene = np.full((40, 30, 3), 200, np.uint8), np.full((40, 30, 3), 100, np.uint8)
    row = composed(image, person, scene, Background(tone=0, edge=1.0))[20, :, 0].astype(int)
    assert row[:10].tolist() == [200] * 10 and row[20:].tolist() == [100] * 10
    assert (np.diff(row[12:18]) < 0).all() and row[14] + row[15] == pytest.approx(300, abs=2)


def test_the_cut_is_the_largest_of_its_shape() -> None:
    ramp = np.zeros((50, 200, 3), np.uint8)
    ramp[..., 0] = np.arange(200)
    got = cut(ramp, (100, 80), np.random.default_rng(1))
    assert got.shape == (100, 80, 3) and np.ptp(got[..., 0].astype(int)) == pytest.approx(39, abs=1)
    got = cut(ramp.swapaxes(0, 1), (100, 80), np.random.default_rng(1))
    assert got.shape == (100, 80, 3) and np.ptp(got[..., 0].astype(int)) == pytest.approx(61, abs=1)


def test_training_sees_them_and_a_position_says_which(folder: Path) -> None:
    chosen = config(folder, augment={"background": {"p": 0.5, "tone": 0, "edge": 0}})
    first, again = (TaskSource(chosen).batch(0, 0, 1) for _ in range(2))
    plain = TaskSource(recipes.micro("segmentation").model_copy(update=dict(chosen) | {"sources": ()})).batch(0, 0, 1)
    assert (first["images"] == again["images"]).all() and (first["mask"] == plain["mask"]).all()
    changed = (first["images"] != plain["images"]).flatten(1).any(1)
    assert 0 < int(changed.sum()) < 8
    second = TaskSource(chosen).batch(1, 0, 1)  # the same scenes in the next epoch, behind other draws
    assert not (first["images"].sort(0).values == second["images"].sort(0).values).all()


@pytest.mark.parametrize("task", ["segmentation", "normal", "pointmap", "albedo"])
def test_every_task_with_pixels_takes_them(folder: Path, task: str) -> None:
    how = {"background": {"p": 1.0, "tone": 0}}
    batch = TaskSource(config(folder, task, augment=how)).batch(0, 0, 1)
    plain = TaskSource(config(folder, task, augment={"background": {"p": 0.0, "tone": 0}})).batch(0, 0, 1)
    assert (batch["images"] != plain["images"]).flatten(1).any(1).all()


def test_the_recipe_is_the_release_where_pictures_are_named(folder: Path) -> None:
    assert augmentation("segmentation", "release")["background"] == Background(p=0.8)
    assert "background" not in augmentation("normal", "release")
    config(folder, augmentation="release", augment={})
    before = data_digest(config(folder))
    assert before is not None and before == data_digest(config(folder))
    (folder / "licence.txt").write_text("not a picture")
    assert data_digest(config(folder)) == before
    cv2.imwrite(str(folder / "c.png"), np.zeros((9, 9, 3), np.uint8))
    assert data_digest(config(folder)) != before


def test_what_cannot_be_done_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"would not be used: add the transform, augment=\{'background': 0.8\}"):
        config(folder, augment={})
    with pytest.raises(ValueError, match="has no pictures: name a folder as `backgrounds` of a source"):
        FinetuneConfig(task="normal", augment={"background": 0.5})
    with pytest.raises(ValueError, match="background is for tasks whose labels say where the person is"):
        config(folder, "pose")
    with pytest.raises(ValueError, match="tone would change what albedo is told by: set it to 0"):
        config(folder, "albedo")
    with pytest.raises(ValueError, match="is relative: give it absolute"):
        DataSource(backgrounds="rooms")
    with pytest.raises(ValueError, match="other backgrounds are for training"):
        EvaluateConfig(task="normal", labelled=DataSource(path="/labels", backgrounds=str(folder)))
    with pytest.raises(ValueError, match="holds no picture"):
        TaskSource(config(tmp_path / "none"))
    (folder / "a.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"a\.png cannot be read as a picture"):
        TaskSource(config(folder)).batch(0, 0, 1)
