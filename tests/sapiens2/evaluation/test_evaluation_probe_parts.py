"""A probe that is killed goes on with the backbone that it was at, and writes what a calm one writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sapiens2 import build_backbone, save_weights
from sapiens2.evaluation.config import SelectionConfig
from sapiens2.evaluation.recipes import micro_probe
from sapiens2.evaluation.remains import keep
from sapiens2.evaluation.select import select
from sapiens2.pretrain.recipes import micro

FILES = ["config.json", "model.safetensors", "checkpoints/step_1.safetensors"]
CONFIG = micro_probe().model_copy(update={"compare": ("timm:vit_tiny_patch16_224:random",), "pictures": 1})
PARTS = ["checkpoint_0", "checkpoint_1", "chosen", "other_0"]
Wrote = dict[str, Any]


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def run_with(folder: Path, *seeds: int) -> Path:
    """A run of two steps: weights of these seeds, the last one's first."""
    for seed, name in zip(seeds, FILES[1:], strict=True):
        torch.manual_seed(seed)
        save_weights(build_backbone("tiny"), folder / name)
    (folder / "config.json").write_text(json.dumps({"config": micro().model_dump(mode="json")}))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_with(tmp_path_factory.mktemp("run"), 0, 1)


class Killed(BaseException):
    """What no code catches."""


def probed(
    run: Path, out: Path, state: str, stop: int = -1, config: SelectionConfig = CONFIG, code: str = "one"
) -> tuple[Wrote, list[tuple[int, str]]]:
    """What a probe wrote, and what it said before each backbone that it measured; it dies before backbone `stop`."""
    told = []

    def progress(done: int, total: int, note: str) -> None:
        assert total == 4
        told.append((done, note))
        if done == stop:
            raise Killed

    select(config, run=str(run), files=FILES, out=str(out), state=state, code=code, progress=progress)
    wrote: Wrote = {path.name: path.read_bytes() for path in out.iterdir()}
    metrics = json.loads(wrote["metrics.json"])
    del metrics["seconds"]
    return wrote | {"metrics.json": metrics}, told


@pytest.fixture(scope="module")
def calm(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Wrote, Path]:
    """What a probe writes that nobody disturbs and that keeps nothing; and the parts of another."""
    folder = tmp_path_factory.mktemp("calm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        wrote, told = probed(run, folder / "out", "")
        assert told == [(done, "") for done in range(5)]
        assert set(wrote) == {"config.json", "fragment.json", "metrics.json", "table.csv", "table.tex"}
        assert not (folder / "work").exists()
        assert probed(run, folder / "again", str(folder / "work"))[0] == wrote
    return wrote, folder / "work"


def before(*done: int, taken: int) -> list[tuple[int, str]]:
    return [(each, f"({taken} measured before)" if taken else "") for each in done]


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_a_killed_probe_goes_on_and_writes_the_same(
    stop: int, run: Path, calm: tuple[Wrote, Path], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    with pytest.raises(Killed):
        probed(run, tmp_path / "out", str(work), stop=stop)
    assert sorted(path.name for path in work.glob("*")) == [f"{name}.measured" for name in PARTS[:stop]]
    torch.manual_seed(stop)  # whatever state the process is in
    wrote, told = probed(run, tmp_path / "out", str(work))
    assert told == before(*range(stop, 5), taken=stop) and wrote == calm[0]  # pictures and tables too


def test_a_probe_that_died_of_its_report_measures_nothing_again(
    run: Path, calm: tuple[Wrote, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sapiens2.evaluation.probe.fit", None)
    monkeypatch.setattr("sapiens2.evaluation.probe.FittedProbe.measure", None)
    wrote, told = probed(run, tmp_path / "out", str(calm[1]))
    assert told == before(4, taken=4) and wrote == calm[0]


class Run:
    """Unpickled, it would leave a file."""

    def __reduce__(self) -> Any:
        return exec, ("open('ran', 'w').close()",)


@pytest.mark.parametrize("damage", ["torn", "bit", "empty", "other", "runs"])
def test_a_part_that_is_not_what_was_written_is_measured_again(
    damage: str,
    run: Path,
    calm: tuple[Wrote, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    work = Path(shutil.copytree(calm[1], tmp_path / "work"))
    part = work / "checkpoint_1.measured"
    data = part.read_bytes()
    match damage:
        case "torn":
            part.write_bytes(data[:-9])
        case "bit":
            middle = len(data) // 2  # in the numbers of an array, which read as well with it
            part.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        case "empty":
            part.write_bytes(b"")
        case "other":  # whole, of another checkpoint
            shutil.copy(work / "checkpoint_0.measured", part)
        case "runs":  # whole, but it would run something
            keep(Run(), str(part))
    wrote, told = probed(run, tmp_path / "out", str(work))
    assert told == [(1, "(1 measured before)"), (4, "(3 measured before)")] and wrote == calm[0]
    assert caplog.text.count("measuring a part again") == 1 and not (tmp_path / "ran").exists()
    assert probed(run, tmp_path / "out", str(work))[1] == before(4, taken=4)  # it is whole again


@pytest.mark.parametrize("what", ["settings", "weights", "code"])
def test_parts_of_something_else_are_measured_again(
    what: str, run: Path, calm: tuple[Wrote, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half the bits of a patch map are no part of a step's version, so that such parts lie where ours would."""
    work = str(shutil.copytree(calm[1], tmp_path / "work"))
    other: dict[str, Any] = {}
    match what:
        case "settings":
            other["config"] = CONFIG.model_copy(update={"half": True})
        case "weights":
            run = run_with(tmp_path / "run", 2, 1)  # the last one has others
        case "code":
            other["code"] = "two"
    wrote, told = probed(run, tmp_path / "out", work, **other)
    assert wrote == probed(run, tmp_path / "anew", "", **other)[0] != calm[0] or what == "code"
    # The first checkpoint and the foreign backbone have the weights that they had.
    assert told[0] == ((1, "(1 measured before)") if what == "weights" else (0, ""))
    assert "comes of other settings, weights, pictures or code" in caplog.text
    assert probed(run, tmp_path / "out", work, **other)[1] == before(4, taken=4)


def test_what_changes_no_number_throws_no_part_away(run: Path, calm: tuple[Wrote, Path], tmp_path: Path) -> None:
    work = str(shutil.copytree(calm[1], tmp_path / "work"))
    more = CONFIG.model_copy(update={"pictures": 3, "cache_scenes": False})
    wrote, told = probed(run, tmp_path / "out", work, config=more)
    assert told == before(4, taken=4) and wrote["table.csv"] == calm[0]["table.csv"]
