"""A list of URLs over several runs: what was fetched is kept, what failed for now is asked again, captions stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import PICTURE, Server

from components.artifacts import Artifact, Store
from components.attempt import Attempt
from components.failure import told
from components.job import Job
from components.plan import plan
from components.run_step import run_step
from components.settings import Settings
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


def epoch(pool: Path, root: Path, **changes: Any) -> int:
    """The try that a run with this configuration makes."""
    made: int = run(pool, root, config(**changes)).manifest.recipe["fetch_epoch"]
    return made


def ends(artifact: Artifact) -> list[str]:
    return ["kept" if row["image_id"] else row["reason"] for row in artifact.read("sources").to_pylist()]


def test_only_what_failed_for_now_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.down = True
    pool = listed(server, tmp_path)
    first = run(pool, tmp_path / "root", config())
    assert ends(first) == ["kept", "server_error", "kept", "http_404", "kept", "kept", "server_error", "opt_out"]
    assert "2 addresses failed for now (server_error 2); --retry-failed tries" in first.manifest.metrics["notes"][0]
    server.reset()
    second = run(pool, tmp_path / "root", config(retry_failed=True))
    assert second.manifest.recipe["fetch_epoch"] == second.manifest.config["fetch_epoch"] == 1
    assert ends(second) == ["kept"] * 3 + ["http_404"] + ["kept"] * 3 + ["opt_out"]
    assert second.manifest.metrics["notes"] == []
    for later in (config(), config(retry_failed=True), config(fetch_epoch=1)):
        assert run(pool, tmp_path / "root", later).version == second.version, "the newest, and nobody is asked"
    assert run(pool, tmp_path / "root", config(fetch_epoch=0)).version == first.version, "a given number rules"
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


def test_a_host_that_stays_dead_makes_another_try_only_when_asked(server: Server, tmp_path: Path) -> None:
    server.down, pool, root = True, listed(server, tmp_path), tmp_path / "root"
    assert [epoch(pool, root, retry_failed=retry) for retry in (True, False, True, False, True)] == [0, 0, 1, 1, 2]
    assert server.hits["/later/2"] == 3 and server.hits["/seed/3"] == 1


def test_a_try_that_was_killed_is_gone_on_with(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.down, pool, root = True, listed(server, tmp_path), tmp_path / "root"
    assert epoch(pool, root) == 0
    server.reset()

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as interrupted:
        patch.setattr(Attempt, "publish", killed)
        epoch(pool, root, retry_failed=True)
    assert server.hits["/later/2"] == server.hits["/later/7"] == 1
    assert "--set ingest.fetch_epoch=1" in told(interrupted.value), "the step's own command is that try too"
    assert epoch(pool, root) == 0, "what is not committed is no try yet"
    assert epoch(pool, root, retry_failed=True) == 1
    assert server.hits["/later/2"] == server.hits["/later/7"] == 1, "partitions that were done stay"
    assert epoch(pool, root, retry_failed=True) == epoch(pool, root) == 1


def test_lists_and_recipes_in_one_root_have_tries_of_their_own(server: Server, tmp_path: Path) -> None:
    server.down, pool, root = True, listed(server, tmp_path), tmp_path / "root"
    other = tmp_path / "other.txt"
    other.write_text(server.url("/later/9") + "\n")
    assert [epoch(pool, root), epoch(other, root)] == [0, 0]
    assert [epoch(pool, root, retry_failed=True) for _ in range(2)] == [1, 2]
    assert epoch(other, root) == 0 and epoch(other, root, retry_failed=True) == 1
    assert epoch(pool, root, min_side_px=40) == 0 and epoch(pool, root, min_side_px=40, retry_failed=True) == 1
    assert epoch(pool, root) == 2 and epoch(other, root) == 1
    assert epoch(pool, root, rows_per_partition=8) == 2, "how it is run is no recipe"


def test_pools_that_are_no_list_have_one_try(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, root = tmp_path / "pool", tmp_path / "root"
    pool.mkdir()
    (pool / "a.jpg").write_bytes(PICTURE)
    made = run(pool, root, config(retry_failed=True))
    assert "[ingest] nothing to try again: the pool is no list of URLs" in capsys.readouterr().out
    assert run(pool, root, config()).version == run(pool, root, config(fetch_epoch=0)).version == made.version
    with pytest.raises(ValueError, match="give one of them"):
        config(retry_failed=True, fetch_epoch=0)


def test_the_newest_try_is_found_under_every_root(server: Server, any_root: str, tmp_path: Path) -> None:
    """The plan says the version that the step makes, and why; a manifest that cannot be read is not passed over."""
    server.down, pool, root = True, listed(server, tmp_path), any_root
    ingest_step, overrides = STEPS["ingest"], {f"ingest.{k}": v for k, v in config().model_dump().items()}
    overrides |= {"ingest.retry_failed": True}

    def planned(**changes: Any) -> Any:
        settings = Settings(overrides=overrides | {f"ingest.{k}": v for k, v in changes.items()})
        listing = ingest.list_sources(str(pool), settings.config(ingest_step))
        (each,) = plan((ingest_step,), settings, Store(root), source=listing)
        return each

    def made() -> Artifact:
        return Job("ingest", root, {"overrides": overrides}, {}, str(pool)).perform().artifact

    first = planned()
    assert first.note == "nothing to try again: this list was not fetched before with these settings"
    assert first.version == made().version == planned(retry_failed=False).version
    second = planned()
    assert (second.reused, second.why, second.note) == (False, "fetch_epoch 0 -> 1", "")
    server.reset()
    artifact = made()
    assert second.version == artifact.version != first.version
    third = planned()
    assert (third.version, third.reused) == (second.version, True)
    assert third.note == "nothing to try again: no address of this list failed for now"
    artifact.storage.write(f"{artifact.folder}/manifest.json", b"{")
    with pytest.raises(ValueError, match=f"{artifact.version}/manifest.json is damaged"):
        planned(retry_failed=False)
