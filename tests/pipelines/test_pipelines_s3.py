"""A whole micro run whose root is on S3: the same versions and digests as on disk, nothing left on the way."""

import pytest
from micro_runs import digests, sapiens2

from components.artifacts import Store


@pytest.mark.timeout(500)
def test_a_run_on_s3_equals_a_run_on_disk(micro_run, micro_pool, s3_root, tmp_path):
    done = sapiens2("run", "--pool", micro_pool, "--preset", "micro", root=s3_root, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert digests(s3_root) == digests(micro_run[0])
    store = Store(s3_root)
    for artifact in store.all():
        left = [path for path, is_file, _, _ in store.storage.list(artifact.folder, recursive=True) if is_file]
        listed = [entry.path for entry in artifact.manifest.files]
        assert sorted(left) == sorted([*listed, f"{artifact.folder}/manifest.json"])


def test_a_bucket_that_is_not_there_is_named(s3_server, micro_pool, tmp_path):
    done = sapiens2(
        "run", "--pool", micro_pool, "--preset", "micro", root="s3://no-such-bucket/x", cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert "no-such-bucket" in done.stderr and "cannot be written" in done.stderr
