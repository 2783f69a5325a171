"""Which test set a row of a table was measured on, of which checkpoint, and which evaluation holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

SHOWN = 8
"""Letters of a version, where it is shown."""


@dataclass(frozen=True)
class Provenance:
    """`test` is the test set as it is shown; rows with the same `alike` can be compared.

    checkpoint: KIND=VERSION of what was measured; evaluation: of where its numbers are. Empty where not known.
    """

    test: str = ""
    alike: str = ""
    checkpoint: str = ""
    evaluation: str = ""

    @property
    def mark(self) -> str:
        """The checkpoint's version behind a model's name, in brackets."""
        version = self.checkpoint.partition("=")[2]
        return f" ({version[:SHOWN]})" if version else ""


UNKNOWN = Provenance()


def provenance(
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    *,
    digest: str | None = None,
    checkpoint: str = "",
    evaluation: str = "",
) -> Provenance:
    """Of an evaluation or a probe, from its configuration and its metrics.json.

    digest: of the labelled data, where it is known: the same data in another folder is the same test set.
    """
    count, labelled = int(metrics["n_test"]), config.get("labelled")
    if labelled:
        test = f"{_name(labelled['path'])}, split {labelled['split']}, {count} labelled sample{'s' * (count != 1)}"
        what: dict[str, Any] = {"data": digest or labelled["path"], "split": labelled["split"]}
    else:
        size, seed = metrics.get("image_size") or config.get("image_size"), config.get("scene_seed") or 0
        test = f"{count} synthetic scenes" + (f", {size[0]} x {size[1]}" if size else "")
        test += f", from seed {seed}" if seed else ""
        what = {"size": size, "seed": seed}
    if "n_train" in config:  # a probe: another decoder or another number of its steps makes another number
        apart = ("checkpoints", "compare", "pictures", "extract_batch", "half", "cache_scenes")
        what["recipe"] = {key: value for key, value in config.items() if key not in apart}
    alike = json.dumps([count, what], sort_keys=True)
    return Provenance(test=test, alike=alike, checkpoint=checkpoint, evaluation=evaluation)


def _name(path: str) -> str:
    """Of labelled data: the folder's own name, or the artifact with the start of its version."""
    kind, _, version = path.partition("=")
    if version and "/" not in path:
        return f"{kind}={version[:SHOWN]}"
    return PurePosixPath(path).name or path
