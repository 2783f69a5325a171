"""The plan says why a step runs: never, another pool, another field, or an attempt that was interrupted."""

import pyarrow as pa

from components.artifacts import Store
from components.attempt import Attempt
from components.manifest import CodeRef, Manifest
from components.plan import plan
from components.refetch import settle
from components.run_step import identify
from components.settings import Settings
from components.steps import STEPS
from curation.images.sources import Listing

INGEST = STEPS["ingest"]
CODE = CodeRef(package_version="0")


def pool(content):
    """The listing of a folder with this digest."""
    return Listing([], content, 1, 1)


def committed(root, settings, source):
    """A store whose latest `images` was made with these settings from this source."""
    config, listing, _ = settle(settings.config(INGEST), pool(source), Store(root))
    identity = identify(INGEST, config, {}, listing.digest)
    names = {"kind": "images", "version": identity.version, "step": "ingest", "digest": None}
    names["revision"] = INGEST.revision
    manifest = Manifest(**names, config={}, recipe=identity.recipe, source=source, code=CODE, start="2026", end="2026")
    store, attempt = Store(root), Attempt(root, "images", identity.version)
    store.tag("latest/images", attempt.publish(manifest, {}, None, []))
    return store


def why(store, settings, source):
    (planned,) = plan((INGEST,), settings, store, source=pool(source))
    return planned.reused, planned.why


def test_every_reason_is_given(tmp_path):
    assert why(Store(str(tmp_path / "new")), Settings(), "a") == (False, "not run yet")
    store = committed(str(tmp_path / "root"), Settings(), "a")
    assert why(store, Settings(), "a") == (True, "")
    assert why(store, Settings(), "b") == (False, "the pool changed")
    other = Settings(overrides={"ingest.min_side_px": 300})
    assert why(store, other, "a") == (False, "min_side_px 224 -> 300")
    assert why(store, Settings(overrides={"ingest.rows_per_partition": 3}), "a") == (True, "")
    config, listing, _ = settle(other.config(INGEST), pool("b"), store)
    version = identify(INGEST, config, {}, listing.digest).version
    Attempt(store.root, "images", version).write_partition("p0", {"images": pa.table({"a": [1]})}, {}, "staging")
    assert why(store, other, "b") == (
        False,
        "interrupted: 1 parts are done and stay; the pool changed; min_side_px 224 -> 300",
    )
