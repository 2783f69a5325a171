"""Segmentation's loss at a coarser grid: an output pixel meets all labels of its square, one at a step."""

from __future__ import annotations

import pytest
import torch

from sapiens2.model.normalise import normalise
from sapiens2.tasks import recipes
from sapiens2.tasks.build import build_task
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.losses import segmentation_losses
from sapiens2.tasks.objective import TaskObjective, photometric, thinned, turn


def test_every_label_of_a_square_has_its_turn() -> None:
    mask = torch.arange(2 * 6 * 9).view(2, 6, 9)
    seen = torch.stack([thinned(mask, 3, step) for step in range(18)])
    assert seen.shape == (18, 2, 2, 3) and torch.equal(seen[:9].roll(-1, 0), seen[9:])
    squares = mask.unflatten(1, (2, 3)).unflatten(3, (3, 3)).movedim(2, 3).flatten(3)
    assert squares.shape == (2, 2, 3, 9) and torch.equal(seen[:9].movedim(0, -1), squares)


def test_steps_that_train_the_backbone_meet_every_label_too() -> None:
    assert {turn(2, step) for step in range(0, 16, 4)} == {turn(2, step) for step in range(4)}


def test_the_loss_looks_at_one_label_of_four() -> None:
    """It is the loss of that sub-pixel of the head's answers: nothing is enlarged, and the others are not computed."""
    config = recipes.micro("segmentation").model_copy(update={"label_stride": 2})
    objective = TaskObjective(config, build_task("segmentation", "tiny"))
    torch.manual_seed(0)
    batch = {
        "images": torch.randint(0, 255, (2, 64, 48, 3), dtype=torch.uint8),
        "photometric": torch.tensor([[0.0, 1, 1, 0]]).repeat(2, 1),
        "mask": torch.randint(0, 29, (2, 64, 48), dtype=torch.uint8),
    }
    logits = objective.model(normalise(photometric(batch["images"], batch["photometric"])))["logits"]
    assert logits.shape == (2, 29, 64, 48)
    for step, label in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        found = objective(batch, step)
        there = (slice(label[0], None, 2), slice(label[1], None, 2))
        expected = segmentation_losses(logits[(..., *there)], batch["mask"][(..., *there)], objective.class_weights)  # type: ignore[arg-type]
        for name, loss in expected.items():
            torch.testing.assert_close(found[name], loss, rtol=1e-6, atol=0)
        assert not torch.equal(found["loss"], objective(batch, step + 1)["loss"])


def test_sub_pixels_apart_lose_what_the_shuffled_answer_loses() -> None:
    config = recipes.micro("segmentation")
    torch.manual_seed(0)
    objective = TaskObjective(config, build_task("segmentation", "tiny"))
    batch = {
        "images": torch.randint(0, 255, (2, 64, 48, 3), dtype=torch.uint8),
        "photometric": torch.tensor([[0.0, 1, 1, 0]]).repeat(2, 1),
        "mask": torch.randint(0, 29, (2, 64, 48), dtype=torch.uint8),
    }
    batch["mask"][1, :9, 5:] = 255
    logits = objective.model(normalise(photometric(batch["images"], batch["photometric"])))["logits"]
    found = objective(batch, 0)
    for name, loss in segmentation_losses(logits, batch["mask"], objective.class_weights).items():  # type: ignore[arg-type]
        torch.testing.assert_close(found[name], loss, rtol=1e-5, atol=0)


def test_a_stride_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"label_stride=5 does not divide image_size=\(64, 48\): use 1 or 2"):
        FinetuneConfig.model_validate(recipes.micro("segmentation").model_dump() | {"label_stride": 5})
