"""How a model is trained, whatever it learns: optimiser, schedule, checkpoints, where it runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, model_validator

from sapiens2.config import Config, execution, recipe


class EngineConfig(Config):
    """Settings of one training run. The defaults are the paper's pretraining optimiser (section 6.1, appendix A.1)."""

    steps: int = recipe(1000, "Optimiser steps of the whole run.", ge=1)
    lr: float = recipe(1e-4, "Peak learning rate, reached after the warm-up.", gt=0)
    min_lr: float = recipe(1e-7, "Learning rate at the last step.", ge=0)
    warmup_steps: int = recipe(0, "Steps of linear warm-up from nearly zero to `lr`.", ge=0)
    schedule: Literal["cosine", "poly"] = recipe("cosine", "Decay from `lr` to `min_lr` after the warm-up.")
    poly_power: float = recipe(1.0, "Exponent of the `poly` schedule; 1 is a straight line.", gt=0)
    optimizer: Literal["adamw", "muon"] = recipe(
        "adamw", "muon moves hidden matrices by balanced momentum, at the same rate and decay, and the rest as adamw."
    )
    weight_decay: float = recipe(0.05, "Decoupled weight decay of matrices, per unit learning rate.", ge=0)
    betas: tuple[float, float] = recipe((0.9, 0.95), "AdamW decay rates of the first and the second moment.")
    eps: float = recipe(1e-8, "AdamW denominator floor.", gt=0)
    clip_norm: float = recipe(5.0, "Largest global gradient norm; larger gradients are scaled down to it.", gt=0)
    precision: Literal["fp32", "bf16"] = recipe("fp32", "Arithmetic of forward and backward; weights stay fp32.")
    residual: Literal["fp32", "bf16"] = recipe(
        "fp32", "Where precision is bf16, what the encoder's residual stream is kept in; bf16 saves memory."
    )
    seed: int = recipe(0, "Seed of the initial weights and of every random draw.", ge=0)

    micro_batches: int = execution(1, "Parts that each rank's share of the global batch is computed in.", ge=1)
    checkpoint_every: int = execution(500, "Steps between two saved states.", ge=1)
    keep_checkpoints: int = execution(2, "Saved states that are kept, the newest first.", ge=1)
    async_checkpoints: bool = execution(
        True, "Write states beside the training, from a copy in host memory; else the step waits for the files."
    )
    log_every: int = execution(20, "Steps between two rows of history.jsonl; losses are read only then.", ge=1)
    term_norms_every: int = execution(
        0, "Steps between two measurements of each term's own gradient norm, a pass per term; 0 measures none.", ge=0
    )
    tensorboard: bool = execution(True, "Also write event files for TensorBoard, if it is installed.")
    max_skipped: int = execution(5, "Steps in a row with a non-finite gradient after which the run stops.", ge=1)
    threads: int = execution(0, "CPU threads of each process; 0 shares all cores but one among its ranks.", ge=0)
    device: Literal["auto", "cpu", "cuda"] = execution("auto", "Where to compute; auto takes a GPU if there is one.")
    compile: bool = execution(False, "Compile the transformer blocks; takes a C++ or GPU compiler and a minute.")
    checkpointing: Literal["none", "elementwise", "selective", "full"] = execution(
        "none", "What backward computes again: nothing, norms and gates, the wide product as well, or whole blocks."
    )
    shard: Literal["auto", "always"] = execution("auto", "FSDP2 from two ranks on, or always.")
    prefetch: int = execution(1, "Batches prepared ahead of the step, in a thread; 0 prepares them in line.", ge=0)
    loader_workers: int = execution(0, "Processes of each rank that prepare batches; 0 leaves it to a thread.", ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> EngineConfig:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr={self.min_lr} is above lr={self.lr}: lower min_lr or raise lr")
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} leaves none of the {self.steps} steps at full rate: "
                f"set warmup_steps below {self.steps} or train longer"
            )
        if self.residual == "bf16" and self.precision == "fp32":
            raise ValueError("residual='bf16' needs precision='bf16': set both, or neither")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas} must both lie in [0, 1), for example (0.9, 0.95)")
        return self


def recipe_of(config: BaseModel) -> dict[str, Any]:
    """The recipe fields of a config as JSON-able values, nested configs included; execution fields are left out."""
    chosen: dict[str, Any] = {}
    values = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("role") == "execution":
            continue
        value = getattr(config, name)
        if isinstance(value, tuple) and value and all(isinstance(item, BaseModel) for item in value):
            chosen[name] = [recipe_of(item) for item in value]
        else:
            chosen[name] = recipe_of(value) if isinstance(value, BaseModel) else values[name]
    return chosen
