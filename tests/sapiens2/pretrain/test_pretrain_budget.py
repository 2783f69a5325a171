"""The budget of a run, and the measurement that it is held against."""

from __future__ import annotations

import pytest
import torch

from sapiens2.pretrain.budget import GPUS, budget
from sapiens2.pretrain.cost import step_cost
from sapiens2.pretrain.measure import NoiseSource, measure
from sapiens2.pretrain.memory import GIBIBYTE, Layout, Predictor
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
    over = budget(small(), gpu="a100", batch_per_gpu=made.largest_batch + 8)
    assert not over.fits and over.memory.total > over.room


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


def test_a_measured_step_is_the_real_one() -> None:
    config = micro()
    found = measure(config, torch.device("cpu"), steps=2)
    assert found.step > 0 and found.images_per_second == pytest.approx(config.batch / found.step)
    assert found.flops == pytest.approx(step_cost(config).total * found.images_per_second)
    assert found.block > 0 and found.data_wait >= 0 and found.mfu is None
    assert found.memory_predicted == Predictor(config, "cpu").memory(Layout(images=4, device="cpu")).total
    batches = NoiseSource(config).batch(0, 1, 2)
    pixels = batches["globals"]
    assert len(pixels) == 2 and pixels.dtype == torch.uint8 and pixels.float().std() > 0
