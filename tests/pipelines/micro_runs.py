"""How the tests of whole runs call the command line, and what they compare."""

import io
import os
import subprocess
import sys
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from unittest import mock

from components.artifacts import Store
from components.steps import STEPS


def words(arguments, root):
    """The words of a command, `--root` last where there is one."""
    return [*map(str, arguments), *(() if root is None else ("--root", str(root)))]


def sapiens2(*arguments, cwd, root=None, check=True, **environment):
    """Run the command line as a user would, in another folder."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *words(arguments, root)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=500,
        check=check,
    )


def sapiens2_here(*arguments, cwd, root=None, check=True, **environment):
    """The same without a new interpreter, for commands that start nothing: the whole of `main` runs, in this process.

    What `main` does not tell in a line is raised, where a process would print a traceback.
    """
    from pipelines.cli import main

    command, out, err, code = ["sapiens2", *words(arguments, root)], io.StringIO(), io.StringIO(), 0
    with ExitStack() as ours:
        ours.enter_context(mock.patch.dict(os.environ, environment))  # puts everything back that the command sets
        ours.enter_context(mock.patch.object(sys, "argv", command))
        for context in (chdir(cwd), redirect_stdout(out), redirect_stderr(err)):
            ours.enter_context(context)
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    done = subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())
    if check:
        done.check_returncode()
    return done


def digests(root):
    """Version and digest of the latest artifact of every step."""
    store = Store(str(root))
    found = {name: store.latest(step.latest_name) for name, step in STEPS.items()}
    return {name: (a.version, a.manifest.digest) for name, a in found.items() if a is not None}
