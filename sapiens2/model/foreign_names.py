"""How other people's backbones are called: `timm:NAME[:FILE]`, `hf:NAME[:FILE]`. Needs neither library nor PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GRID_STRIDE = 16  # pixels per cell of the grid on which every backbone answers
RANDOM = "random"
LIBRARIES = ("timm", "hf")
LOCAL = ("/", ".", "~")  # how the name of a folder begins, and no name of a hub


@dataclass(frozen=True)
class ForeignName:
    """The parts of `timm:NAME:FILE`; file is None for the library's own weights, `random` for fresh ones."""

    library: str
    name: str
    file: str | None


def parse_name(text: str, *, check: bool = True) -> ForeignName:
    """Take a name apart. Raises ValueError for another library, an empty name or, with `check`, a missing file."""
    library, _, rest = text.partition(":")
    name, _, file = rest.partition(":")
    if library not in LIBRARIES or not name:
        raise ValueError(f"{text!r} names no backbone: write timm:NAME, hf:NAME, or either with :FILE or :random")
    if check and file and file != RANDOM and not Path(file).is_file():
        raise ValueError(f"{text!r}: there is no file {file}; give a local .safetensors or .pth file, or :random")
    return ForeignName(library, name, file or None)
