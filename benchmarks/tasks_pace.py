"""How many steps of each task fit into the minutes that benchmarks/tasks_learn.py is given, on this machine.

A few steps of every task are timed, as many processes at a time as will train. All recipes are then lengthened or
shortened by one factor, so that what their steps say of the tasks' needs stays.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from sapiens2.engine.step import FiniteGate, Step, make_optimizer
from sapiens2.engine.world import cpu_threads, joined
from sapiens2.tasks.assemble import assemble
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.objective import TaskObjective
from sapiens2.tasks.source import TaskSource

TIMED = 8
"""Steps that are timed, a multiple of how often the backbone is trained."""
SPARE = 0.92
"""Share of the time that is planned: batches are made beside the steps, and read scenes from disk the first time."""
AROUND_S = 12.0
"""A training's start, its last pictures and its measurement, of one core."""
LONGEST = 3.0
"""Factor beyond which recipes are not lengthened: their rates were found for shorter runs."""


def seconds_per_step(config: FinetuneConfig) -> float:
    """Wall-clock seconds of a training step, from random weights."""
    with joined(config.engine) as world, cpu_threads(config.engine):
        objective = TaskObjective(config, assemble(config)).train()
        optimizer = make_optimizer(objective, config.engine)
        step = Step(objective, optimizer, config.engine, world, FiniteGate(world.device))
        source = TaskSource(config)
        # Made beforehand: each would read files that a whole training reads once.
        batches = [source.batch(number, 0, 1) for number in range(TIMED)]
        for number in range(-2, TIMED):
            if number == 0:
                began = time.perf_counter()
            step(number % TIMED, [batches[number % TIMED]])
        return (time.perf_counter() - began) / TIMED


def factor(recipes: list[FinetuneConfig], arms: int, jobs: int, seconds: float) -> dict[str, Any]:
    """What all steps are to be multiplied by for the trainings to take `seconds`, and what that was found from."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        each = list(pool.map(seconds_per_step, recipes))
    work = arms * sum(config.engine.steps * cost for config, cost in zip(recipes, each, strict=True))
    room = seconds * jobs - arms * len(recipes) * AROUND_S
    found = min(LONGEST, max(0.0, SPARE * room / work))
    costs = {config.task: round(cost, 4) for config, cost in zip(recipes, each, strict=True)}
    return {"factor": round(found, 4), "seconds per step": costs}
