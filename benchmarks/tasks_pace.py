"""How many steps of each task fit into the minutes that benchmarks/tasks_learn.py is given, on this machine.

A few steps of every task are timed, as many processes at a time as will train, in fp32 and, where the processor has
instructions for it, in bf16; each task trains in the faster. All recipes are then lengthened or shortened by one
factor, so that what their steps say of the tasks' needs stays.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from sapiens2.engine.allocator import keep_freed_memory
from sapiens2.engine.arithmetic import SLOWER, bf16_over_fp32
from sapiens2.engine.step import FiniteGate, Step, make_optimizer
from sapiens2.engine.world import cpu_threads, joined
from sapiens2.tasks.assemble import assemble
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.objective import TaskObjective
from sapiens2.tasks.source import TaskSource

WARM, TIMED = 4, 16
"""Steps that are not timed, and that are; each a multiple of how often the backbone is trained."""
SPARE = 0.9
"""Share of the time that is planned: batches are made beside the steps, and read scenes from disk the first time; a
step was measured to take a tenth longer over a whole training."""
AROUND_S = 12.0
"""A training's start, its last pictures and its measurement, of one core."""
LONGEST = 3.0
"""Factor beyond which recipes are not lengthened: their rates were found for shorter runs."""


def seconds_per_step(config: FinetuneConfig) -> float:
    """Wall-clock seconds of a training step, from random weights."""
    keep_freed_memory()  # as training does
    with joined(config.engine) as world, cpu_threads(config.engine):
        objective = TaskObjective(config, assemble(config)).train()
        optimizer = make_optimizer(objective, config.engine)
        step = Step(objective, optimizer, config.engine, world, FiniteGate(world.device))
        source = TaskSource(config)
        # Made beforehand: each would read files that a whole training reads once.
        batches = [source.batch(number, 0, 1) for number in range(TIMED)]
        for number in range(-WARM, TIMED):
            if number == 0:
                began = time.perf_counter()
            step(number % TIMED, [batches[number % TIMED]])
        return (time.perf_counter() - began) / TIMED


def faster_arithmetic(config: FinetuneConfig) -> tuple[str, float]:
    """fp32 or bf16, and its seconds per step; convolutions gain less from bf16 than matrix products."""
    choices = ("fp32", "bf16") if bf16_over_fp32() < SLOWER else ("fp32",)
    found = {}
    for choice in choices:
        engine = config.engine.model_copy(update={"precision": choice})
        found[choice] = seconds_per_step(config.model_copy(update={"engine": engine}))
    return min(found.items(), key=lambda pair: pair[1])


def pace(recipes: list[FinetuneConfig], arms: int, jobs: int, seconds: float) -> dict[str, Any]:
    """What all steps are to be multiplied by for the trainings to take `seconds`, each in its faster arithmetic.

    No longer than the longest training may take: it is one process, however many jobs there are.
    """
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        each = list(pool.map(faster_arithmetic, recipes))
    costs = {config.task: cost for config, (_, cost) in zip(recipes, each, strict=True)}
    works = [config.engine.steps * costs[config.task] for config in recipes]
    room = (seconds * jobs - arms * len(recipes) * AROUND_S) / (arms * sum(works))
    room = max(0.0, min(room, (seconds - AROUND_S) / max(works)))
    return {
        "factor": round(min(LONGEST, SPARE * room), 4),
        "seconds per step": {task: round(cost, 4) for task, cost in costs.items()},
        "arithmetic": {config.task: choice for config, (choice, _) in zip(recipes, each, strict=True)},
    }
