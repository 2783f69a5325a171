"""A training run from files alone, without Ray: in this process, or as the ranks that torchrun started.

    torchrun --nproc-per-node 2 -m sapiens2.train pretrain --config config.json --out out --state state \\
        --train-files shards/*.parquet

The configuration is JSON: that of a run, or the config.json that an earlier one published.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from sapiens2.config import Config
from sapiens2.engine import storage
from sapiens2.engine.control import Control
from sapiens2.engine.interrupt import Interrupted

# What each target runs, with which settings, and the paths that it takes beside out and state.
TARGETS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "pretrain": (
        "sapiens2.pretrain.run",
        "sapiens2.pretrain.config:PretrainConfig",
        ("train_files", "val_files", "init"),
    ),
    "finetune": ("sapiens2.tasks.run", "sapiens2.tasks.config:FinetuneConfig", ("backbone",)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a target; 0 when it ended, 1 when it was asked to stop and saved, 2 for settings or files that are wrong."""
    options = _parser().parse_args(arguments)
    module, settings, names = TARGETS[options.target]
    given = {name: getattr(options, name) for name in (*names, "out", "state")}
    paths = {name: value for name, value in given.items() if value is not None}
    try:
        metrics = getattr(importlib.import_module(module), options.target)(
            read_config(options.config, settings), control=Control(), **paths
        )
    except (ValueError, FileNotFoundError, Interrupted) as error:
        print(error, file=sys.stderr)
        return 1 if isinstance(error, Interrupted) else 2
    if os.environ.get("RANK", "0") == "0":
        print(
            f"{options.out}: {metrics['steps']} steps, loss {metrics['loss_first']:.4f} -> {metrics['loss_final']:.4f}"
        )
    return 0


def read_config(uri: str, settings: str) -> Config:
    """The configuration in a JSON file; `settings` is "module:class". Raises ValueError where it is not one."""
    module, _, name = settings.partition(":")
    kind: type[Config] = getattr(importlib.import_module(module), name)
    try:
        content: Any = json.loads(storage.read_bytes(uri))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{uri} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{uri} holds no configuration: it must be a JSON object with the fields of {name}")
    try:
        return kind.model_validate(content["config"] if isinstance(content.get("config"), dict) else content)
    except ValidationError as error:
        problems = [(".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors()]
        raise ValueError(f"{uri}: " + "; ".join(f"{where}: {m}" if where else m for where, m in problems)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sapiens2.train", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="target", required=True)
    for target in TARGETS:
        command = commands.add_parser(target)
        command.add_argument("--config", required=True, help="JSON file of the configuration")
        command.add_argument("--out", required=True, help="folder or URI for weights, curves and metrics")
        command.add_argument("--state", required=True, help="folder or URI that all ranks reach, for saved states")
    pretrain, finetune = commands.choices["pretrain"], commands.choices["finetune"]
    pretrain.add_argument("--train-files", nargs="+", required=True, help="shards to train on")
    pretrain.add_argument("--val-files", nargs="*", default=[], help="shards to measure on")
    pretrain.add_argument("--init", help="model.safetensors to start from")
    finetune.add_argument("--backbone", help="model.safetensors of the backbone, if the configuration names none")
    return parser


if __name__ == "__main__":
    sys.exit(main())
