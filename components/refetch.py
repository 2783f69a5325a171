"""Tries of a list of URLs: which one a run makes, and what the one before it fetched, so that it asks only for what
failed.

`fetch_epoch` counts them and is part of the version. Where it is not given, a run is the newest try that its root
holds; `retry_failed` makes the next one, when an address of the newest failed for now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pyarrow as pa

from components.artifacts import Artifact, ArtifactError, Store
from components.settings import recipe_fields
from components.steps import STEPS
from curation.images.reasons import TRANSIENT, Reason, Reject
from curation.images.sources import Listing

_EPOCH = "fetch_epoch"
_FIRST = "nothing to try again: this list was not fetched before with these settings"
_NO_LIST = "nothing to try again: the pool is no list of URLs"
_ALL_WELL = "nothing to try again: no address of this list failed for now"


def settle(config: Any, listing: Listing, store: Store) -> tuple[Any, Listing, str]:
    """ingest's configuration and its listing with the try that they stand for, and what to say when none is due.

    A given `fetch_epoch` is kept. Settling what is settled changes nothing.
    """
    epoch, said = config.fetch_epoch, ""
    if epoch is None:
        epoch, said = _try_of(config, listing, store)
    settled = config.model_copy(update={_EPOCH: epoch, "retry_failed": False})
    return settled, replace(listing, fetch_epoch=epoch), said


def _try_of(config: Any, listing: Listing, store: Store) -> tuple[int, str]:
    if listing.url_list is None:
        return 0, _NO_LIST if config.retry_failed else ""
    tries = _tries(store, listing, recipe_fields(config))
    newest = max(tries, default=0)
    if not config.retry_failed:
        return newest, ""
    if not tries:
        return newest, _FIRST
    failed = _for_now(tries[newest].manifest.metrics["dropped"])
    return (newest + 1, "") if failed else (newest, _ALL_WELL)


def same_try(config: Any, listing: Listing) -> Any:
    """A settled configuration as a later command must give it to be this try, whatever else the root holds then."""
    first = listing.url_list is None and config.fetch_epoch == 0
    return config.model_copy(update={_EPOCH: None}) if first else config


def earlier_fetch(store: Store, listing: Listing, recipe: dict[str, Any]) -> Artifact | None:
    """The `images` of the latest lower epoch of this list under the same recipe, or None."""
    if listing.url_list is None or recipe["fetch_anew"]:
        return None
    found = {epoch: tried for epoch, tried in _tries(store, listing, recipe).items() if epoch < recipe[_EPOCH]}
    return found[max(found)] if found else None


def _tries(store: Store, listing: Listing, recipe: dict[str, Any]) -> dict[int, Artifact]:
    """The committed `images` of this list under the same recipe, by epoch."""
    step, wanted = STEPS["ingest"], {**recipe, _EPOCH: None}
    found: dict[int, Artifact] = {}
    for artifact in store.each(lambda version: _there(store, step.kind, version), store.versions(step.kind)):
        if artifact is None or artifact.manifest.step != step.name:
            continue
        manifest, epoch = artifact.manifest, artifact.manifest.recipe[_EPOCH]
        same = {**manifest.recipe, _EPOCH: None} == wanted and manifest.revision == step.revision
        if not same or manifest.metrics.get("url_list") != listing.url_list:
            continue
        if epoch not in found or manifest.source == replace(listing, fetch_epoch=epoch).digest:  # not another denylist
            found[epoch] = artifact
    return found


def _there(store: Store, kind: str, version: str) -> Artifact | None:
    """A version, or None when it has just been deleted. Raises ValueError when its manifest is damaged: it may be the
    newest try, and an older one would be other pictures."""
    try:
        return store.get(kind, version)
    except ArtifactError:
        return None


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


def _for_now(reasons: Iterable[str]) -> list[str]:
    return [reason for reason in reasons if Reason(reason) in TRANSIENT]


def failed_for_now(rejects: pa.Table) -> str | None:
    """A note on the addresses that another try may reach, with how to make it; None when there are none."""
    reasons = Counter(_for_now(rejects["reason"].to_pylist()))
    if not reasons:
        return None
    what = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    addresses = "1 address" if reasons.total() == 1 else f"{reasons.total()} addresses"
    return (
        f"{addresses} failed for now ({what}); --retry-failed tries again and keeps what was fetched, and later runs "
        "stay with that"
    )
