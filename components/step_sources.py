"""The committed record of what each step's source was at its revision, so that a changed meaning cannot go unnoticed.

When a test says that a step's source changed, either raise `revision` in components/steps.py (its outputs differ) or
accept the new source under the same revision (they do not); both by

    python -m components.step_sources "why"
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.steps import LABELS, STEPS, Step

RECORD = Path(__file__).with_name("step_sources.json")
DATA = {".json", ".npy", ".tsv"}


def families() -> dict[str, Step]:
    """One step for each family: tasks share their source."""
    return {step.family: step for step in reversed((*STEPS.values(), LABELS))}


def source_hash(step: Step) -> str:
    """16 digits over the code of the step's modules; comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for path in sorted({path for name in step.sources for path in _files(name)}):
        digest.update(path.name.encode() + b"\0" + _meaning(path))
    return digest.hexdigest()[:16]


def _files(module: str) -> Iterator[Path]:
    """A module's file, a package's files with its data, or what a prefix like curation.models.person names."""
    parent, _, name = module.rpartition(".")
    base = Path(importlib.import_module(parent).__path__[0]) if parent else Path(__file__).parent.parent
    folder = base / name
    if folder.is_dir():
        yield from (p for p in folder.rglob("*") if p.suffix == ".py" or p.suffix in DATA)
    yield from base.glob(f"{name}*.py")


def _meaning(path: Path) -> bytes:
    """Lines that are neither docstring, comment nor empty: the same on every Python version."""
    text = path.read_text()
    if path.suffix != ".py":
        return text.encode()
    docs: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr) and _is_text(body[0].value):
            docs.update(range(body[0].lineno, (body[0].end_lineno or body[0].lineno) + 1))
    lines = (line.strip() for number, line in enumerate(text.splitlines(), 1) if number not in docs)
    return "\n".join(line for line in lines if line and not line.startswith("#")).encode()


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def record() -> dict[str, dict[str, Any]]:
    """What is committed: revision, source hash and the reason given, by family."""
    found: dict[str, dict[str, Any]] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return found


def changed() -> list[str]:
    """Families whose source is not the recorded one, or whose revision is not."""
    known = record()
    return [
        name
        for name, step in sorted(families().items())
        if known.get(name, {}).get("source") != source_hash(step) or known[name]["revision"] != step.revision
    ]


def accept(why: str) -> list[str]:
    """Record the present sources; `why` says that the changed ones mean the same, or what the new revision is."""
    known, names = record(), changed()
    for name in names:
        step = families()[name]
        known[name] = {"revision": step.revision, "source": source_hash(step), "why": why}
    RECORD.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
    return names


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):  # an option such as --help is no reason
        sys.exit(__doc__)
    print("accepted:", ", ".join(accept(sys.argv[1])) or "nothing had changed")
