"""What an earlier run of the same list of URLs fetched, so that a raised `fetch_epoch` asks only for what failed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from components.artifacts import Artifact, Store
from components.steps import STEPS
from curation.images.reasons import TRANSIENT, Reason, Reject
from curation.images.sources import Listing

_EPOCH = "fetch_epoch"


def earlier_fetch(store: Store, listing: Listing, recipe: dict[str, Any]) -> Artifact | None:
    """The `images` of the latest lower epoch of this list under the same recipe, or None."""
    if listing.url_list is None or recipe["fetch_anew"]:
        return None
    wanted = {**recipe, _EPOCH: None}
    found: dict[int, Artifact] = {}
    for _, _, artifact in store.look():
        if isinstance(artifact, ValueError) or artifact.manifest.step != "ingest":
            continue
        manifest = artifact.manifest
        epoch = manifest.recipe.get(_EPOCH, -1)
        same = {**manifest.recipe, _EPOCH: None} == wanted and manifest.revision == STEPS["ingest"].revision
        if same and epoch < recipe[_EPOCH] and manifest.metrics.get("url_list") == listing.url_list:
            found[epoch] = artifact
    return found[max(found)] if found else None


def known_outcomes(artifact: Artifact, pid: str) -> dict[str, bytes | Reject]:
    """What is settled of the sources of a partition, by source: bytes, or a reject that another try would not change.

    Bytes that another partition holds are left out, to be fetched again; so is what a denylist refused.
    """
    if pid not in artifact.partitions("sources"):
        return {}
    sources, images, rejects = (artifact.read_partition(name, pid) for name in ("sources", "images", "rejects"))
    bodies = dict(zip(images["image_id"].to_pylist(), images["bytes"].to_pylist(), strict=True))
    known: dict[str, bytes | Reject] = {
        row["source"]: bodies[row["image_id"]] for row in sources.to_pylist() if row["image_id"] in bodies
    }
    for row in rejects.to_pylist():
        reason = Reason(row["reason"])
        if reason not in TRANSIENT and reason is not Reason.DENYLISTED:
            known[row["source"]] = Reject(reason, row["detail"])
    return known


def failed_for_now(rejects: pa.Table, epoch: int) -> str | None:
    """A note on the addresses that another try may reach, with how to make it; None when there are none."""
    reasons = Counter(reason for reason in rejects["reason"].to_pylist() if Reason(reason) in TRANSIENT)
    if not reasons:
        return None
    what = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    return (
        f"{reasons.total()} addresses failed for now ({what}); --set ingest.fetch_epoch={epoch + 1} tries them again "
        "and keeps what was fetched; later runs then need it too, without it they are this one again"
    )
