"""Which errors are the user's to mend, and the line that tells of one."""

from __future__ import annotations

import click

USER_ERROR = 2
INTERRUPTED = 130
PATHS: dict[type[Exception], str] = {
    FileNotFoundError: "there is no such file or folder",
    IsADirectoryError: "that is a folder, and a file is needed",
    NotADirectoryError: "a file is in the way of a folder",
    FileExistsError: "something is in the way there: choose another name",
}
"""What the operating system says of a path, in words; only of errors that name the path."""


def say(text: str, error: Exception) -> None:
    """The line for the user, and what was noted on its way: where it was, which command runs the step again."""
    click.echo("\n".join([text, *getattr(error, "__notes__", ())]), err=True)


def told(error: Exception) -> str:
    """The line for the user; what pyarrow says of an object store names no mend, and errno no path to a person."""
    if _of_a_path(error):
        return f"{getattr(error, 'filename', '')}: {PATHS[type(error)]}"
    if not _of_the_store(error):
        return str(error)
    return (
        f"the object store failed ({error}); look at the address, the network, the credentials, "
        "and AWS_ENDPOINT_URL where the store is not Amazon's"
    )


def code_of(error: Exception) -> int | None:
    """The exit code of an error that is told in a line; None for one whose traceback is needed.

    Told are what the user can mend, a step of a run that failed, and a training that was stopped.
    """
    if isinstance(error, ValueError | FileNotFoundError | PermissionError) or _of_a_path(error):
        return USER_ERROR
    if type(error).__name__ == "Interrupted":  # of sapiens2.engine, which the command line does not import
        return INTERRUPTED
    if hasattr(error, "user"):
        return USER_ERROR if error.user else 1
    return USER_ERROR if _of_the_store(error) else None


def _of_a_path(error: Exception) -> bool:
    return isinstance(error, OSError) and type(error) in PATHS and error.filename is not None


def _of_the_store(error: Exception) -> bool:
    return isinstance(error, OSError) and "AWS Error" in str(error)
