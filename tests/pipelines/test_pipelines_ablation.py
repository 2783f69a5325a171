"""`sapiens2 ablation` on a root that a micro run made: an artifact with its lineage, reused the next time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.ablation import drawn
from components.artifacts import Store
from pipelines.cli import cli

QUICK = ("changes.dim=32", "changes.layers=2", "changes.heads=2", "batch=4")


@pytest.fixture(scope="module")
def root(micro_run: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, since other tests count what lies under the original."""
    return Path(shutil.copytree(micro_run[0], tmp_path_factory.mktemp("ablation") / "root"))


def ablate(root: Path, axis: str, *more: str) -> str:
    sizes = [part for field in QUICK for part in ("--set", f"pretrain.{field}")]
    arguments = ["ablation", "--axis", axis, "--root", str(root), "--preset", "micro", "--seeds", "1", *sizes, *more]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    ("axis", "arms"), [("objective", {"both", "mae", "contrastive"}), ("curation", {"random", "filtered", "deduped"})]
)
def test_an_ablation_is_an_artifact(root: Path, axis: str, arms: set[str]) -> None:
    printed = ablate(root, axis)
    store = Store(str(root))
    artifact = store.latest(f"evaluation-{axis}")
    assert artifact is not None and artifact.version in printed
    told = json.loads(store.storage.read(artifact.file_path("ablation.json")))
    assert arms <= {arm["arm"] for arm in told["arms"]}
    assert {d["reference"] for d in told["differences"]} == {told["reference"]}
    roles = {ref.role for ref in artifact.manifest.inputs}
    assert roles == ({"shards"} if axis == "objective" else {"images", "filtered", "deduped", "selection"})
    assert "reused" in ablate(root, axis)


def test_pools_are_drawn_whatever_their_order() -> None:
    ids = [f"{i:032x}" for i in range(50)]
    assert drawn(ids, 7) == drawn(reversed(ids), 7) != ids[:7]
