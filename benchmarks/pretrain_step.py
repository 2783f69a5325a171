"""Our pretraining step beside a straightforward one: same weights, same batch, same losses.

    python benchmarks/pretrain_step.py [--batch 8] [--rounds 5]
    python benchmarks/pretrain_step.py --device cuda --sizes 0.1b,0.4b,0.8b,1b,5b [--compiled] --out FILE

The straightforward step is written here, from the equations: mask tokens stand in the encoder (full student sequences),
one forward pass per crop group, the teacher's last block computes all tokens, key heads are repeated, the decoder's
last map runs over the whole grid, AdamW, clip and EMA go tensor by tensor. It has our weights, and before any time is
taken its three losses must be ours: for that check the mask tokens are hidden from all queries, which makes both the
same mathematics (what they do to each other is not compared). Ours is the engine's own `Step`.

On a CPU (one thread, fp32) sides take turns and the ratio is that of the median processor times; the straightforward
side is also given smaller local views (its own best size, as equal length buys it nothing). On a GPU (bfloat16) the
table is img/s, MFU of 989 TFLOP/s and peak memory, with steady steps under `set_sync_debug_mode("error")`; `--out`
keeps every case as a JSON line, and a case that is there is not run again. Prints a table; the last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from decode_hash import photographs
from torch import Tensor, nn

from sapiens2.data.shards import Row
from sapiens2.engine.parallel import World
from sapiens2.engine.step import FiniteGate, Step, make_optimizer
from sapiens2.model import block
from sapiens2.model.backbone import Backbone, patchify
from sapiens2.model.normalise import normalise
from sapiens2.pretrain import losses, schedules
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.cost import step_cost
from sapiens2.pretrain.decoder import complement, take
from sapiens2.pretrain.objective import PretrainObjective, final_norm
from sapiens2.pretrain.photometric import augment
from sapiens2.pretrain.preparation import decode, stacked
from sapiens2.pretrain.recipes import demo, paper
from sapiens2.pretrain.views import sample

PEAK = 989e12  # dense bfloat16 FLOP/s of an H100 or H200
TARGET_CPU = 1.5
TARGET_MFU = {"0.1b": 0.33, "0.4b": 0.40, "0.8b": 0.42, "1b": 0.45, "5b": 0.38}
BATCH = {"0.1b": 32, "0.4b": 16, "0.8b": 12, "1b": 8, "5b": 4}
STEP = 10  # past the first warm-up steps, so that KoLeo counts
Batch = dict[str, Tensor]


class Attention:
    """Attention of the straightforward side: key heads always repeated; keys can be hidden, for the check alone."""

    def __init__(self) -> None:
        self.shown: Tensor | None = None  # [B, n]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shared = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        mask = None if self.shown is None else self.shown[:, None, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Straightforward(nn.Module):
    """The objective with mask tokens in the encoder and a forward pass per crop group, on our weights."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.config, self.ours = config, PretrainObjective(config)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.ours.backbone.architecture.dim))
        self.attention, self.checking = Attention(), False

    def forward(self, batch: Batch, step: int) -> Batch:
        """The terms of a batch."""
        config, ours = self.config, self.ours
        images = normalise(batch["globals"].flatten(0, 1))  # [2 B, 3, H, W], the two views of an image in a row
        answers = self._answer(images, step).unflatten(0, (-1, 2))
        kept = batch["kept"].flatten(0, 1)
        hidden = self._encode(ours.backbone, images, kept)
        cls = [final_norm(ours.backbone, hidden[:, 0]).unflatten(0, (-1, 2))]
        error = self._reconstruction(ours.backbone.ln1(hidden), images, kept)
        changed = augment(batch["locals"].flatten(0, 1), batch["photometric"].flatten(0, 1))
        local = self._encode(ours.backbone, normalise(changed))[:, 0]
        cls.append(final_norm(ours.backbone, local).unflatten(0, (-1, config.local_views)))
        student = torch.cat(cls, 1)  # [B, 2 + V, D]
        with torch.autocast(batch["globals"].device.type, enabled=False):
            logits = ours.head(student, freeze_prototypes=False)
            koleo = [losses.koleo_loss(c, config.koleo_group, config.koleo_floor) for c in student[:, :2].unbind(1)]
            terms = {
                "mae": error,
                "contrastive": losses.cross_view_loss(logits, answers, config.student_temperature),
                "koleo": torch.stack(koleo).mean(),
            }
            total = torch.stack([ours.weights(step)[name] * term for name, term in terms.items()]).sum()
            return {"loss": total, **terms}

    def _encode(self, backbone: Backbone, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """All tokens of a group of views; those not kept are replaced by the mask token. Before the last norm."""
        tokens = backbone.embed(backbone.patchify(images))
        if kept is not None:
            seen = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device).scatter(1, kept, True)
            tokens = torch.where(seen[..., None], tokens, self.mask_token.to(tokens.dtype))
            if self.checking:
                self.attention.shown = F.pad(seen, (backbone.prefix, 0), value=True)
        hidden = backbone.encode(tokens, backbone.rope.rows(*backbone.grid(*images.shape[-2:]), images.device))[0]
        self.attention.shown = None
        return hidden

    @torch.no_grad()
    def _answer(self, images: Tensor, step: int) -> Tensor:
        ours, config = self.ours, self.config
        cls = final_norm(ours.teacher, self._encode(ours.teacher, images)[:, 0])
        with torch.autocast(images.device.type, enabled=False):
            temperature = schedules.linear(step, *config.teacher_temperature, config.teacher_temperature_steps)
            return losses.centred(ours.teacher_head(cls), ours.centre, temperature)

    def _reconstruction(self, normed: Tensor, images: Tensor, kept: Tensor) -> Tensor:
        """The decoder over the whole grid; every token is predicted, and the hidden ones are picked from that."""
        decoder, config = self.ours.decoder, self.config
        visible = take(normed[:, self.ours.backbone.prefix :], kept)
        x = torch.cat([decoder.embed(normed[:, :1]), decoder.fill(visible, kept, config.grid)], 1)
        for layer in decoder.blocks:
            x = layer(x, None)
        masked = complement(kept, config.tokens)
        prediction = take(decoder.predict(decoder.norm(x[:, 1:])), masked)
        return losses.reconstruction_loss(prediction, take(patchify(images, config.target_patch), masked))


class PlainStep:
    """One optimiser step of the straightforward side: everything tensor by tensor."""

    def __init__(self, objective: Straightforward) -> None:
        self.objective, self.config = objective, objective.config
        groups = objective.ours.param_groups(self.config.engine.lr, self.config.engine.weight_decay)
        groups[1]["params"].append(objective.mask_token)
        self.trained = [p for group in groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(groups, betas=self.config.engine.betas, foreach=False, fused=False)

    def __call__(self, step: int, batch: Batch) -> None:
        bf16 = self.config.engine.precision == "bf16"
        with torch.autocast(batch["globals"].device.type, torch.bfloat16, enabled=bf16):
            loss = self.objective(batch, step)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, self.config.engine.clip_norm, foreach=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        ours = self.objective.ours
        with torch.no_grad():
            for teacher, student in ((ours.teacher, ours.backbone), (ours.teacher_head, ours.head)):
                for t, s in zip(teacher.parameters(), student.parameters()):
                    t.copy_(t * self.config.ema + s * (1 - self.config.ema))


@contextmanager
def plain_attention(attention: Attention) -> Iterator[None]:
    """The blocks attend as the straightforward side does."""
    original = block.attend
    block.attend = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        block.attend = original


def side(name: str, config: PretrainConfig, device: torch.device, compiled: bool) -> Callable[[int, Batch], None]:
    """One step of a side as a function of the step's number and the batch."""
    if name == "ours":
        objective = PretrainObjective(config).to(device).train()
        world = World(0, 1, device)
        whole = Step(objective, make_optimizer(objective, config.engine), config.engine, world, FiniteGate(device))
        step = lambda number, batch: (whole(number, [batch]), None)[1]  # noqa: E731
    else:
        objective = Straightforward(config).to(device).train()
        plain = PlainStep(objective)

        def step(number: int, batch: Batch) -> None:
            with plain_attention(objective.attention):
                plain(number, batch)

    if compiled:
        for module in objective.modules():
            if isinstance(module, block.Block):
                module.compile()
    return step


def batch_of(config: PretrainConfig, device: torch.device) -> Batch:
    """Views of installed photographs."""
    short = min(max(config.image_size), 1024)
    files = photographs((short, short * 4 // 3), 8)
    pictures = [decode(Row("", data, short, short * 4 // 3), 1) for data in files]
    made = [sample(pictures[i % len(pictures)], config, i) for i in range(config.batch)]  # type: ignore[arg-type]
    return {name: tensor.to(device) for name, tensor in stacked(made).items()}


def check(config: PretrainConfig, batch: Batch) -> float:
    """The largest relative difference of the three losses, in fp32, from random weights that all count."""
    ours, plain = PretrainObjective(config), Straightforward(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in ours.parameters():
            scale = 0.3 if parameter.ndim < 2 else 0.5 * parameter[0].numel() ** -0.5
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
        plain.ours.load_state_dict(ours.state_dict())
        plain.checking = True
        with plain_attention(plain.attention):
            reference = plain(batch, STEP)
        terms = ours(batch, STEP)
    apart = {name: abs(terms[name].item() / value.item() - 1) for name, value in reference.items()}
    assert max(apart.values()) < 1e-5, f"the two sides have other losses: {apart}"
    return max(apart.values())


def tiny(batch: int, local: tuple[int, int]) -> PretrainConfig:
    """A step that a CPU does in a second or two: 192 tokens, of which the student sees 48."""
    fields = demo().model_dump()
    fields |= {"batch": batch, "image_size": (256, 192), "local_size": local, "centring": "centre"}
    fields["freeze_prototypes_steps"] = 0
    return PretrainConfig(**fields)


def on_cpu(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    device = torch.device("cpu")
    configs = {
        "ours": tiny(options.batch, (128, 96)),
        "straightforward": tiny(options.batch, (128, 96)),
        "straightforward, smaller locals": tiny(options.batch, (112, 80)),
    }
    batches = {name: batch_of(config, device) for name, config in configs.items()}
    difference = check(configs["ours"], batches["ours"])
    steps = {name: side(name, config, device, False) for name, config in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(options.rounds + 1):
        for name, step in steps.items():
            began = time.process_time()
            step(STEP + turn, batches[name])
            if turn:  # the first is a warm-up
                seconds[name].append(time.process_time() - began)
    medians = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    ratios = {name: round(value / medians["ours"], 2) for name, value in medians.items()}
    print(f"losses of the two sides differ by {difference:.1e} (relative, mask tokens hidden)")
    print("seconds of a step".ljust(36) + "seconds".rjust(10) + "ratio".rjust(8))
    for name, value in medians.items():
        print(name.ljust(36) + f"{value:10.3f}{ratios[name]:7.2f}x")
    meets = min(value for name, value in ratios.items() if name != "ours") >= TARGET_CPU
    return {"seconds": medians, "ratios": ratios, "loss_difference": difference, "meets": meets}


def gpu_case(size: str, name: str, compiled: bool, rounds: int) -> dict[str, Any]:
    """img/s, MFU and peak memory of one side at one size; steady steps may not wait for the device."""
    device = torch.device("cuda")
    config = paper(size).model_copy(update={"batch": BATCH[size], "freeze_prototypes_steps": 0})  # type: ignore[arg-type]
    config = config.model_copy(update={"koleo_group": min(config.koleo_group, config.batch)})
    case: dict[str, Any] = {"size": size, "side": name, "compiled": compiled, "batch": config.batch}
    torch.cuda.reset_peak_memory_stats()
    try:
        step, batch = side(name, config, device, compiled), batch_of(config, device)
        for number in range(3):  # step 0 measures RankMe, which waits for the device
            step(number, batch)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error" if name == "ours" else "default")
        began = time.perf_counter()
        for number in range(3, 3 + rounds):
            step(number, batch)
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
    except torch.cuda.OutOfMemoryError:
        return case | {"out_of_memory": True}
    rate = rounds * config.batch / (time.perf_counter() - began)
    flops = step_cost(config).total  # of our step, for both: useful work
    peak = torch.cuda.max_memory_allocated() / 2**30
    return case | {"images_per_second": rate, "mfu": rate * flops / PEAK, "peak_gib": peak}


def on_gpu(options: argparse.Namespace) -> dict[str, Any]:
    lines = options.out.read_text().splitlines() if options.out and options.out.exists() else []
    results = [json.loads(line) for line in lines]
    print("  size              side    compiled batch     img/s     MFU  target  peak GiB")
    for size in options.sizes.split(","):
        for name in ("ours", "straightforward"):
            wanted = {"size": size, "side": name, "compiled": options.compiled, "batch": BATCH[size]}
            found = next((r for r in results if r.items() >= wanted.items()), None)
            if found is None:
                found = gpu_case(size, name, options.compiled, options.rounds)
                torch.cuda.empty_cache()
                results.append(found)
                if options.out:
                    with options.out.open("a") as file:
                        file.write(json.dumps(found) + "\n")
            told = f"{size:>6}{name:>18}{found['compiled']!s:>12}{found['batch']:>6}"
            if "out_of_memory" in found:
                print(told + "  out of memory", flush=True)
                continue
            told += (
                f"{found['images_per_second']:10.2f}{found['mfu']:8.1%}{TARGET_MFU[size]:8.0%}{found['peak_gib']:10.1f}"
            )
            print(told, flush=True)
    return {"cases": results, "device": torch.cuda.get_device_name()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=8, help="images of a step, on a CPU")
    parser.add_argument("--rounds", type=int, default=5, help="measured steps of each side")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--sizes", default="0.1b,0.4b,0.8b,1b,5b", help="on a GPU")
    parser.add_argument("--compiled", action="store_true", help="torch.compile per block, on both sides")
    parser.add_argument("--out", type=Path, help="JSON lines, on a GPU; cases that are there are not run again")
    options = parser.parse_args()
    found = on_cpu(options) if options.device == "cpu" else on_gpu(options)
    print(json.dumps({"benchmark": "pretrain_step", **found, "machine": platform.machine()}))


if __name__ == "__main__":
    main()
