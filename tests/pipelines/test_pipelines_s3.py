"""A root on S3 that cannot be used; whole runs on S3 are in test_pipelines_submit."""

from micro_runs import sapiens2


def test_a_bucket_that_is_not_there_is_named(s3_server, micro_pool, tmp_path):
    done = sapiens2(
        "run", "--pool", micro_pool, "--preset", "micro", root="s3://no-such-bucket/x", cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert f"the bucket no-such-bucket at {s3_server} refuses (NoSuchBucket" in done.stderr
    assert "create the bucket" in done.stderr and "Traceback" not in done.stderr


def test_a_store_that_is_not_there_is_told_before_any_work(micro_pool, tmp_path):
    nobody = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    for command in (("artifacts", "list"), ("run", "--pool", micro_pool, "--preset", "micro")):
        done = sapiens2(*command, root="s3://pictures/x", cwd=tmp_path, check=False, **nobody)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "the bucket pictures at http://127.0.0.1:9 does not answer" in done.stderr


def test_doctor_writes_to_a_root_on_s3_and_reads_it_back(s3_server, s3_root):
    from pipelines.doctor_cli import OK, WRONG, _disk

    assert _disk(s3_root) == (OK, "store", f"{s3_root} is read and written")
    state, _, text = _disk("s3://no-such-bucket/x")
    assert state == WRONG and "create the bucket" in text
