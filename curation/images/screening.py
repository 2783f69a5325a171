"""Denylists in files, and the screen: a function of the user's that sees every picture before a person does."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import lru_cache

from curation.images.denylist import Denylist
from curation.images.places import open_location

Screen = Callable[[bytes], str | None]  # encoded bytes to None, or a word for why the picture is refused


def read_denylists(files: Sequence[str]) -> list[tuple[str, str]]:
    """(name, text) of each file or s3:// address. Raises ValueError for one that cannot be read."""
    found = []
    for file in files:
        try:
            with open_location(file) as stream:
                found.append((file, stream.read().decode("utf-8-sig")))
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the denylist {file} cannot be read ({type(error).__name__}); mend the path") from error
    return found


def denylist_of(files: Sequence[str]) -> Denylist:
    """All entries of the files. Raises ValueError naming file and line of what is no entry."""
    whole = Denylist()
    for name, text in read_denylists(files):
        whole |= Denylist.parse(text.splitlines(), name)
    return whole


@lru_cache(maxsize=4)
def load_screen(name: str) -> Screen:
    """The function that MODULE:NAME means. Raises ValueError when there is none."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"ingest.screen={name!r} is no function that can be imported ({error}); write MODULE:NAME, and install the "
            "module or put its folder on PYTHONPATH"
        ) from error
    if not callable(found):
        raise ValueError(f"ingest.screen={name!r} is not a function; name one that takes bytes")
    return found
