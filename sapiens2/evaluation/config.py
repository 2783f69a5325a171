"""What an evaluation is."""

from __future__ import annotations

from sapiens2.config import Config, execution, recipe
from sapiens2.tasks.build import TaskName


class EvaluateConfig(Config):
    """Settings of one evaluation on held-out synthetic people."""

    task: TaskName = recipe("pose", "Which task the checkpoint was trained for.")
    n_test: int = recipe(256, "Held-out scenes: poses, patterns and backgrounds of families never trained on.", ge=1)
    scene_seed: int = recipe(0, "Seed of the first held-out scene; the others follow.", ge=0)
    image_size: tuple[int, int] | None = recipe(None, "Height and width, pixels; None takes the training size.")
    rounds: int = recipe(200, "Bootstrap resamples behind every 95 % interval.", ge=1)
    seed: int = recipe(0, "Seed of the resamples.", ge=0)

    pictures: int = execution(8, "Scenes drawn in the fragment.", ge=0)
    batch: int = execution(16, "Images per forward pass.", ge=1)
    cache_scenes: bool = execution(True, "Keep rendered scenes on disk for other runs and tasks.")
