"""Imports go one way: pipelines -> components -> {curation, sapiens2}, as the contracts in pyproject.toml say."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
LINTER = Path(sys.executable).with_name("lint-imports")


def test_every_contract_is_kept():
    done = subprocess.run([LINTER, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


def test_only_the_launcher_imports_ray_in_sapiens2():
    naming = [
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "sapiens2").rglob("*.py")
        if any(line.strip().startswith(("import ray", "from ray")) for line in path.read_text().splitlines())
    ]
    assert naming == ["sapiens2/launch.py"]
