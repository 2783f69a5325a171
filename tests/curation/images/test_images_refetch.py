"""A list of URLs over several runs: what was fetched is kept, what failed for now is asked again, captions stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import Server

from components.artifacts import Artifact
from components.run_step import run_step
from components.steps import STEPS
from curation.stages import ingest


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def config(**changes: Any) -> ingest.IngestConfig:
    values = {"min_side_px": 32, "workers": 0, "rows_per_partition": 4, "allow_private_addresses": True}
    return ingest.IngestConfig(**{**values, "fetch_retries": 0, "host_interval_s": 0.0, **changes})


def listed(server: Server, folder: Path) -> Path:
    """Eight sources: pictures, a copy, one that is gone, two that fail while the server is down."""
    paths = ["seed/1", "later/2", "seed/3", "status/404", "seed/5", "seed/1", "later/7", "noai"]
    rows = [f"{server.url('/' + path)},caption {n},CC-BY-{n}" for n, path in enumerate(paths)]
    pool = folder / "urls.csv"
    pool.write_text("\n".join(["url,caption,licence", *rows]) + "\n")
    return pool


def run(pool: Path, root: Path, settings: ingest.IngestConfig) -> Artifact:
    listing = ingest.list_sources(str(pool), settings)
    return run_step(STEPS["ingest"], settings, {}, str(root), source=listing).artifact


def ends(artifact: Artifact) -> list[str]:
    return ["kept" if row["image_id"] else row["reason"] for row in artifact.read("sources").to_pylist()]


def test_only_what_failed_for_now_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.down = True
    pool = listed(server, tmp_path)
    first = run(pool, tmp_path / "root", config())
    assert ends(first) == ["kept", "server_error", "kept", "http_404", "kept", "kept", "server_error", "opt_out"]
    assert (
        "2 addresses failed for now (server_error 2); --set ingest.fetch_epoch=1" in first.manifest.metrics["notes"][0]
    )
    server.reset()
    second = run(pool, tmp_path / "root", config(fetch_epoch=1))
    assert ends(second) == ["kept"] * 3 + ["http_404"] + ["kept"] * 3 + ["opt_out"]
    assert second.manifest.metrics["notes"] == []
    assert "later runs then need it too" in first.manifest.metrics["notes"][0]
    assert run(pool, tmp_path / "root", config()).version == first.version, "a run without it is the first one, unasked"
    # the copy of seed/1 is in the second partition, its bytes in the first; policy files are still known
    assert dict(server.hits) == {"/later/2": 1, "/later/7": 1, "/seed/1": 1}
    whole = run(pool, tmp_path / "other", config(fetch_epoch=1))
    assert second.manifest.digest == whole.manifest.digest
    rows = second.read("sources").to_pylist()
    assert [(row["caption"], row["licence"]) for row in rows] == [(f"caption {n}", f"CC-BY-{n}") for n in range(8)]


def test_everything_is_fetched_anew_when_asked_or_when_the_recipe_differs(server: Server, tmp_path: Path) -> None:
    pool = listed(server, tmp_path)
    run(pool, tmp_path / "root", config())
    for changes in ({"fetch_anew": True}, {"min_side_px": 40}):
        server.reset()
        run(pool, tmp_path / "root", config(fetch_epoch=1, **changes))
        assert server.hits["/seed/3"] == server.hits["/status/404"] == 1


def test_a_killed_run_goes_on_behind_its_last_partition(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, done = listed(server, tmp_path), []
    work = ingest.IngestPartition.__call__

    def killed_at_the_second(self: Any, *args: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return work(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ingest.IngestPartition, "__call__", killed_at_the_second)
        run(pool, tmp_path / "root", config())
    assert server.hits["/seed/3"] == 1 and server.hits["/seed/5"] == 0
    artifact = run(pool, tmp_path / "root", config())
    assert server.hits["/seed/3"] == 1 and server.hits["/seed/5"] == 1 and server.hits["/robots.txt"] == 1
    assert artifact.manifest.metrics["rows_in"] == 8
