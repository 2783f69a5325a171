"""One of several ranks: runs `sapiens2.train` with one list of arguments after another, which all take.

Its argument is JSON: pairs of a file, through which the ranks tell each other a port that is free by then, and the
arguments of the run.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

from sapiens2 import train


def agreed_port(note: Path) -> str:
    """A port that the first rank has found and the others have read."""
    if os.environ["RANK"] == "0":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            written = note.with_suffix(".part")
            written.write_text(str(probe.getsockname()[1]))
        written.rename(note)
    deadline = time.monotonic() + 120
    while not note.exists():
        assert time.monotonic() < deadline, "the first rank has not come so far"
        time.sleep(0.02)
    return note.read_text()


if __name__ == "__main__":
    for note, arguments in json.loads(sys.argv[1]):
        os.environ["MASTER_PORT"] = agreed_port(Path(note))
        if code := train.main(arguments):
            sys.exit(code)
