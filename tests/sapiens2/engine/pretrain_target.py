"""The real pretraining as a target of `sapiens2.launch`, whose process dies once in the middle of a save."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from sapiens2.engine import checkpoint
from sapiens2.engine.control import PLAIN, Control
from sapiens2.pretrain.config import PretrainConfig
from sapiens2.pretrain.run import pretrain


def run(
    config: PretrainConfig,
    *,
    train_files: list[str],
    out: str,
    state: str,
    kill_at_save: int = 0,
    control: Control = PLAIN,
) -> dict[str, Any]:
    """Pretrain; once, between the data and the marker of a state, kill this process and note what is verified."""
    write, killed = checkpoint.storage.write_bytes, Path(state).with_name("killed")

    def write_or_die(uri: str, data: bytes) -> None:
        if uri.endswith(f"step_{kill_at_save}/{checkpoint.MARKER}") and not killed.exists():
            newest = checkpoint.newest(state)
            killed.write_text(str(newest.step if newest else None))
            os.kill(os.getpid(), signal.SIGKILL)
        write(uri, data)

    checkpoint.storage.write_bytes = write_or_die
    try:
        return pretrain(config, train_files=train_files, val_files=[], out=out, state=state, control=control)
    finally:
        checkpoint.storage.write_bytes = write
