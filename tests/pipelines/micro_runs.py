"""How the tests of whole runs call the command line, and what they compare."""

import os
import subprocess
import sys

from components.artifacts import Store
from components.steps import STEPS


def sapiens2(*arguments, root, cwd, check=True, **environment):
    """Run the command line as a user would, in another folder."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *map(str, arguments), "--root", str(root)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "160", **environment},
        timeout=500,
        check=check,
    )


def digests(root):
    """Version and digest of the latest artifact of every step."""
    store = Store(str(root))
    found = {name: store.latest(step.latest_name) for name, step in STEPS.items()}
    return {name: (a.version, a.manifest.digest) for name, a in found.items() if a is not None}
