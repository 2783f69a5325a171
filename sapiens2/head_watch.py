"""Says that Ray's head is gone: Ray waits a minute for it, and then ends this process without a word."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EVERY_S, PATIENCE = 5.0, 3  # between two looks; looks in a row that find nobody


@contextmanager
def told_when_lost(address: str) -> Iterator[None]:
    """While the block runs, print one line to stderr when nobody answers at `address` (host:port) for a while."""
    ended = threading.Event()

    def watch() -> None:
        missed = 0
        while not ended.wait(EVERY_S):
            missed = 0 if _answers(address) else missed + 1
            if missed == PATIENCE:
                print(
                    f"error: Ray's head at {address} is gone: unless it comes back within a minute, Ray ends this "
                    "process; what is done is kept, the same command goes on",
                    file=sys.stderr,
                    flush=True,
                )

    threading.Thread(target=watch, name="head-watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=EVERY_S).close()
    except OSError:
        return False
    return True
