"""An import writes over nothing: what lies in its folder is compared before the first file is written.

The folder may be that of the labels or the pictures themselves, and theirs are the only copies.
"""

from __future__ import annotations

from collections.abc import Callable

from sapiens2.data.labelled.layout import LabelError
from sapiens2.engine import storage


def lies_there(folder: str, name: str, content: Callable[[], bytes]) -> bool:
    """Whether the file `name` below the folder has this content already, as after an import that was killed.

    content: gives the bytes; it is asked only if there is such a file. Raises LabelError if that holds other bytes.
    """
    path = storage.join(folder, name)
    if not storage.exists(path):
        return False
    if storage.read_bytes(path) != content():
        raise LabelError(
            path,
            "is there already, and the import would write another content over it",
            "import into a new folder, not into that of the labels or the pictures",
        )
    return True
