"""A root on S3 that cannot be used; whole runs on S3 are in test_pipelines_submit."""

from micro_runs import sapiens2


def test_a_bucket_that_is_not_there_is_named(s3_server, micro_pool, tmp_path):
    done = sapiens2(
        "run", "--pool", micro_pool, "--preset", "micro", root="s3://no-such-bucket/x", cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert "no-such-bucket" in done.stderr and "cannot be written" in done.stderr
