"""The step loop: resume, train, log, save, stop when asked, publish the weights.

The same loop serves a plain process, torchrun and Ray Train. All that a run remembers is in its state folder and
every random draw is keyed by the step, so a run that was killed continues bit for bit (same number of ranks, CPU).
"""

from __future__ import annotations

import gc
import hashlib
import json
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from sapiens2.engine import checkpoint, storage
from sapiens2.engine.allocator import keep_freed_memory
from sapiens2.engine.arithmetic import warn_of_slow_bf16
from sapiens2.engine.config import EngineConfig, recipe_of
from sapiens2.engine.control import PLAIN, Control
from sapiens2.engine.feeder import Feeder
from sapiens2.engine.history import History, Row, Window
from sapiens2.engine.interrupt import Interrupted, StopRequest
from sapiens2.engine.objective import BatchSource, Passing
from sapiens2.engine.parallel import parallelize, whole
from sapiens2.engine.progress import Reporter
from sapiens2.engine.saver import Saver
from sapiens2.engine.schedule import learning_rate
from sapiens2.engine.speed import speed
from sapiens2.engine.step import FiniteGate, Step, make_optimizer
from sapiens2.engine.training_state import collect, digest, prepare
from sapiens2.engine.world import World, any_rank, cpu_threads, from_leader, gather_objects, joined


class Diverged(RuntimeError):
    """Too many steps in a row had a non-finite gradient. The state of such a run is never saved."""


@dataclass(frozen=True)
class TrainSummary:
    """What a finished run reports. `seconds` is the training time over all its restarts."""

    steps: int
    digest: str
    seconds: float
    images: int
    skipped: int
    resumed_from: int
    ranks: int
    device: str
    parameters: int
    trained_parameters: int
    first: Row
    last: Row
    history: list[Row]


def train(
    objective: nn.Module,
    source: BatchSource,
    config: EngineConfig,
    *,
    out: str,
    state: str,
    title: str = "train",
    images_per_step: int = 0,
    flops_per_image: float = 0.0,
    recipe: dict[str, Any] | None = None,
    publish_at: Collection[int] = (),
    control: Control = PLAIN,
) -> TrainSummary:
    """Train `objective` on `source`, continuing from the newest verified state under `state` if there is one.

    Writes `<state>/step_<n>/` while it runs and `<out>/{history.jsonl, model.safetensors}`; both are local paths or
    s3:// URIs; and the weights after each step of `publish_at`, see `published`. `recipe` is what a saved state must
    have been written with (default: the engine's own recipe); `flops_per_image` is what `mfu` counts. Raises
    Interrupted (state saved) when asked to stop or signalled, Diverged when gradients stay non-finite, ValueError if
    the saved state belongs to another recipe or model.
    """
    with (
        joined(config) as world,
        cpu_threads(config),
        _quiet_gc(),
        _own_randomness(world),
        StopRequest(control.stop) as asked,
    ):
        if world.device.type == "cpu":
            keep_freed_memory()
        if world.leads:
            warn_of_slow_bf16(config, world.device)
        wanted = recipe_of(config) if recipe is None else recipe
        objective = parallelize(objective, world, config)
        run = _Run(objective, source, config, world, out, state, title, images_per_step, flops_per_image, wanted)
        run.resume()
        with _placed(run), run.saver, closing(run):
            run.advance(asked, control, frozenset(publish_at))
        return run.finish()


@contextmanager
def _placed(run: _Run) -> Iterator[None]:
    """Notes on an error at which step it came, and what is kept."""
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        at = run.saver.saved_at
        kept = f"the state of step {at} is kept, a rerun continues from it" if at else "no state was saved before"
        error.add_note(f"in step {run.done + 1} of {run.config.steps}; {kept}")
        raise


class _Run:
    """One run of the loop, its counters and its places."""

    def __init__(
        self,
        objective: nn.Module,
        source: BatchSource,
        config: EngineConfig,
        world: World,
        out: str,
        state: str,
        title: str,
        images_per_step: int,
        flops_per_image: float,
        recipe: dict[str, Any],
    ) -> None:
        self.objective, self.source, self.config, self.world = objective, source, config, world
        self.out, self.state, self.title = out, state, title
        self.images_per_step, self.flops_per_image = images_per_step, flops_per_image
        self.recipe = json.loads(json.dumps(recipe))
        self.trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
        self.optimizer = make_optimizer(objective, config)  # type: ignore[arg-type]
        self.gate = FiniteGate(world.device)
        self.window = Window(world.device)
        self.step = Step(objective, self.optimizer, config, world, self.gate)
        self.saver = Saver(state, world, keep=config.keep_checkpoints, beside=config.async_checkpoints)
        self.done = self.resumed_from = 0
        self.seconds_before, self.began = 0.0, time.perf_counter()
        self.waited_s = 0.0
        self.history = History(out, [], writes=False)

    def resume(self) -> None:
        """Read the newest verified state; all ranks take the one that rank 0 found."""
        found = from_leader(checkpoint.newest(self.state) if self.world.leads else None, self.world)
        rows: list[Row] = []
        if found is not None:
            self._check_recipe(found)
            load_into = lambda names: prepare(self.objective, self.optimizer, names)  # noqa: E731
            checkpoint.load(found, load_into, world=self.world)
            rows = found.note["history"]
            self.gate.skipped.fill_(found.note["skipped"])
            self.gate.in_row.fill_(found.note["skipped_in_row"])
            self.seconds_before = found.note["seconds"]
            self._recall(found.note.get("unreadable_rows", []))
            self.done = self.saver.saved_at = self.resumed_from = found.step
        self.history = History(self.out, rows, writes=self.world.leads, tensorboard=self.config.tensorboard)

    def _check_recipe(self, found: checkpoint.Saved) -> None:
        before, now = _flat(found.note["recipe"]), _flat(self.recipe)
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                raise ValueError(
                    f"{found.uri} was written with {key}={before.get(key)}, this run has {key}={now.get(key)}: "
                    "continue with the same recipe, or give another state folder"
                )

    def _recall(self, unreadable: list[str]) -> None:
        if isinstance(self.source, Passing):
            self.source.skipped.update(unreadable)

    def _unreadable(self) -> list[str]:
        """Ids of rows that the source passed over, on any rank; all ranks know them from now on."""
        own = sorted(self.source.skipped) if isinstance(self.source, Passing) else []
        every = sorted({name for names in gather_objects(own, self.world) for name in names})
        self._recall(every)
        return every

    def advance(self, asked: StopRequest, control: Control, publish_at: frozenset[int] = frozenset()) -> None:
        """Train from where the run stands to the last step."""
        config, steps = self.config, self.config.steps
        feeder = Feeder(
            self.source,
            self.world,
            micro_batches=config.micro_batches,
            prefetch=config.prefetch,
            first=self.done,
            last=steps,
            workers=config.loader_workers,
        )
        shows = control.shows and self.world.leads
        with feeder, Reporter(self.title, steps, self.done, shows=shows, listener=control.on_row) as reporter:
            self.objective.train()
            while self.done < steps:
                torch.manual_seed(_step_seed(config.seed, self.done, self.world.rank))
                self.window.add(*self.step(self.done, feeder.next()))
                self.done += 1
                self.saver.look()
                reporter.stepped(self.done)
                stopping = self.done < steps and self._asked_to_stop(asked)
                saving = stopping or self.done == steps or self.done % config.checkpoint_every == 0
                if saving or self.done % config.log_every == 0:
                    self._log(reporter, feeder)
                if self.done in publish_at:
                    self._publish(published(self.out, self.done))  # before the state: a killed run comes by again
                if saving:
                    self._save()
                if stopping:
                    self.saver.wait()
                    raise Interrupted(self.done, steps, self.state)

    def _asked_to_stop(self, asked: StopRequest) -> bool:
        # Ranks must agree, and agreeing reads from the device: on a GPU only as often as losses are read.
        if self.world.size > 1 and self.world.device.type == "cuda" and self.done % self.config.log_every:
            return False
        return any_rank(bool(asked), self.world)

    def _log(self, reporter: Reporter, feeder: Feeder) -> None:
        row: Row = {"step": self.done, "lr": learning_rate(self.done - 1, self.config)}
        row |= self.window.row(self.world)
        elapsed = row["seconds_per_step"] * self.window.steps
        row["data_wait"] = (feeder.waited_s - self.waited_s) / elapsed if elapsed else 0.0
        row["skipped"] = int(self.gate.skipped.item())
        if self.images_per_step:
            rate = self.images_per_step / row["seconds_per_step"]
            row |= speed(self.world, self.config.precision, rate, self.flops_per_image)
        self.waited_s = feeder.waited_s
        self.window = Window(self.world.device)
        self.history.append(row)
        if self.world.leads:
            reporter.row(row)
        gc.collect(1)
        self._check_finite()

    def _check_finite(self) -> None:
        worst = int(self.gate.worst_row.item())
        if worst >= self.config.max_skipped:
            self.saver.wait()
            at = self.saver.saved_at
            kept = f"the last saved state is step {at}" if at else "no state was saved"
            raise Diverged(
                f"{worst} steps in a row up to step {self.done} had a non-finite gradient; {kept}: "
                "lower lr, lengthen warmup_steps, or look at the data of these steps"
            )

    def _save(self) -> None:
        note = {
            "recipe": self.recipe,
            "history": list(self.history.rows),
            "skipped": int(self.gate.skipped.item()),
            "skipped_in_row": int(self.gate.in_row.item()),
            "seconds": self._seconds(),
            "unreadable_rows": self._unreadable(),
        }
        self.saver.save(collect(self.objective, self.optimizer), note, self.done)
        self.history.flush()

    def _publish(self, uri: str) -> None:
        """Write the weights; collective over all ranks."""
        with torch.no_grad():
            exported = {name: whole(t).cpu().contiguous() for name, t in self.objective.export_state().items()}  # type: ignore[operator]
        if self.world.leads:
            _publish_weights(exported, uri)

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.began

    def close(self) -> None:
        """End what writes beside the run."""
        self.history.close()

    def finish(self) -> TrainSummary:
        """Write the weights and sum the run up; collective over all ranks."""
        self._publish(storage.join(self.out, "model.safetensors"))
        rows = self.history.rows
        return TrainSummary(
            steps=self.done,
            digest=digest(collect(self.objective, self.optimizer)),
            seconds=self._seconds(),
            images=self.images_per_step * self.done,
            skipped=int(self.gate.skipped.item()),
            resumed_from=self.resumed_from,
            ranks=self.world.size,
            device=str(self.world.device),
            parameters=sum(p.numel() for p in self.objective.parameters()),
            trained_parameters=self.trained,
            first=rows[0],
            last=rows[-1],
            history=rows,
        )


def published(out: str, step: int) -> str:
    """Where the weights after a step of `publish_at` lie."""
    return storage.join(out, "checkpoints", f"step_{step}.safetensors")


def _flat(recipe: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in recipe.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _publish_weights(tensors: dict[str, torch.Tensor], uri: str) -> None:
    with tempfile.TemporaryDirectory(prefix="sapiens2-weights-") as folder:
        path = Path(folder) / "model.safetensors"
        save_file(tensors, path, metadata={"format": "pt"})
        storage.upload(path, uri)


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of torch's global generator for one step, for layers that draw from it (dropout, drop-path)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()[:8], "big") >> 1


@contextmanager
def _own_randomness(world: World) -> Iterator[None]:
    """Leave the caller's global generators as they were."""
    devices = [world.device.index or 0] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def _quiet_gc() -> Iterator[None]:
    """No garbage collection in the middle of a step, which would make one rank wait for another's.

    What is there by then is of the oldest generation, at which the collections between steps do not look. What the
    process has frozen stays so.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
