"""The budget of a run, and the measurement that it is held against."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sapiens2.pretrain.budget import GPUS, budget
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.cost import step_cost
from sapiens2.pretrain.measure import measure, pictures, source_of
from sapiens2.pretrain.memory import GIBIBYTE, Layout, Predictor, layout_of
from sapiens2.pretrain.recipes import micro, paper, small


def test_the_arithmetic_of_a_run() -> None:
    made = budget(small(), gpu="h200", gpus=2, mfu=0.25)
    seconds = step_cost(small()).total * 8000 * 256 / (2 * 0.25 * 989e12)
    assert made.images == 2_048_000 and made.flops == step_cost(small()).total * made.images
    assert made.days == pytest.approx(seconds / 86400) and made.gpu_hours == pytest.approx(2 * seconds / 3600)
    assert made.images_per_second == pytest.approx(made.images / seconds)
    assert budget(small(), gpu="a100").days == pytest.approx(budget(small(), gpu="h200").days * 989 / 312)


def test_the_micro_batch_fits_divides_and_is_the_largest() -> None:
    made = budget(small(), gpu="a100")
    assert made.fits and made.batch_per_gpu * made.micro_batches == 256
    assert made.batch_per_gpu <= made.largest_batch and made.memory.total <= GPUS["a100"].memory
    wide = small().model_copy(update={"batch": 4096})
    over = budget(wide, gpu="a100", batch_per_gpu=4096)
    assert not over.fits and over.memory.total > over.room and over.largest_batch < 4096


def test_the_settings_of_a_plan_are_those_it_was_made_with() -> None:
    made = budget(small(), gpu="a100", checkpointing="selective", compiled=False)
    assert made.settings == {"micro_batches": made.micro_batches, "compile": False, "checkpointing": "selective"}
    config = PretrainConfig.model_validate(
        small().model_dump() | {"engine": small().engine.model_dump() | made.settings}
    )
    layout = layout_of(config, ranks=1, device="cuda")
    assert Predictor(config).memory(layout).total == made.memory.total
    assert budget(small(), gpu="h100").settings["compile"] is True


@pytest.mark.parametrize("images", [0, 1, 12, 96, 512])
def test_a_micro_batch_that_training_would_refuse_is_refused(images: int) -> None:
    with pytest.raises(
        ValueError, match=f"{images} images at a time do not divide a GPU's 256 .*: choose one of 8, 16"
    ):
        budget(small(), batch_per_gpu=images)


def test_what_does_not_fit_says_so_and_checkpointing_makes_it_fit() -> None:
    config = paper("1b")
    plain, full = (budget(config, gpu="h100", checkpointing=how) for how in ("none", "full"))  # type: ignore[arg-type]
    assert (
        not plain.fits and plain.batch_per_gpu == 0 and plain.memory.lasting / GIBIBYTE == pytest.approx(28.6, rel=0.01)
    )
    assert full.fits and full.batch_per_gpu >= 8
    assert full.recomputed == pytest.approx((full.cost.student + full.cost.decoder) / 3) and plain.recomputed == 0


def test_disk() -> None:
    made = budget(micro())
    objective = Predictor(micro(), "cpu").objective
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    teacher = sum(p.numel() for p in objective.parameters() if not p.requires_grad)
    assert made.state == pytest.approx(4 * (3 * trained + teacher), rel=1e-3)
    assert made.weights == 4 * sum(p.numel() for p in objective.teacher.parameters())


@pytest.mark.parametrize(
    ("hardware", "message"),
    [
        ({"gpu": "tpu"}, "unknown GPU 'tpu'; choose one of h200, h100, a100"),
        ({"mfu": 40.0}, "mfu=40.0 is no share"),
        ({"gpus": 7}, "256 images does not divide among 7 GPUs"),
    ],
)
def test_mistakes_are_named(hardware: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        budget(small(), **hardware)  # type: ignore[arg-type]


def test_a_measured_step_is_the_real_one(tmp_path: Path) -> None:
    config = micro()
    found = measure(config, torch.device("cpu"), steps=2)
    assert found.step > 0 and found.images_per_second == pytest.approx(config.batch / found.step)
    assert found.flops == pytest.approx(step_cost(config).total * found.images_per_second)
    assert found.block > 0 and found.data_wait >= 0 and found.mfu is None
    assert found.memory_predicted == Predictor(config, "cpu").memory(Layout(images=4, device="cpu")).total
    config = config.model_copy(update={"cache_mb": 64, "koleo_group": 2})
    source = source_of(pictures(tmp_path), config)
    pixels = source.batch(0, 1, 2)["globals"]
    assert len(pixels) == 2 and pixels.dtype == torch.uint8 and pixels.float().std() > 0
    assert len(source.shards) == 16 and source.config.cache_mb == 0  # so that every batch is decoded
