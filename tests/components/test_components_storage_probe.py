"""A root in an object store that cannot be used is told within seconds, in one line that names place and mend."""

import pytest
from small_s3 import SmallS3

from components.storage import Storage, StorageError
from sapiens2.engine import patient_s3

ROOT = "s3://pictures/root"
TOLD = {  # what is wrong -> what the line says beside the address and the bucket
    "bucket": ["NoSuchBucket", "create the bucket, or mend its name"],
    "key": ["InvalidAccessKeyId", "mend AWS_ACCESS_KEY_ID"],
    "secret": ["SignatureDoesNotMatch", "mend AWS_SECRET_ACCESS_KEY"],
    "clock": ["RequestTimeTooSkewed", "the clock here says", "the server's", "NTP"],
    "busy": ["SlowDown", "try again later"],
}
WRITES = {
    "html": ["does not speak S3", "AWS_ENDPOINT_URL"],
    "write": ["AccessDenied", "right to list, read, write and delete"],
    "length": ["AWS_REQUEST_CHECKSUM_CALCULATION=when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required"],
    "framed": ["AWS_REQUEST_CHECKSUM_CALCULATION=when_required", "the frame of its checksum"],
}


@pytest.fixture
def server(monkeypatch):
    """A small S3 that is right until a test says otherwise, and what finds it."""
    made = SmallS3()
    names = {"ENDPOINT_URL": made.url, "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "REGION": "us-east-1"}
    for name, value in names.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    for name in ("REQUEST_CHECKSUM_CALCULATION", "RESPONSE_CHECKSUM_VALIDATION", "ENDPOINT_URL_S3", "SESSION_TOKEN"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    yield made
    made.close()


def test_a_store_that_works_is_used_and_nothing_is_left_in_it(server):
    Storage(ROOT).ensure_writable()
    assert not [key for key in server.objects if not key.endswith("/")] and server.requests < 12


@pytest.mark.parametrize("trouble", TOLD)
def test_a_bucket_that_does_not_answer_is_told_with_the_mend(server, trouble):
    server.trouble = trouble
    with pytest.raises(StorageError) as told:
        Storage(ROOT).reach()
    for text in (server.url, "bucket pictures", ROOT, *TOLD[trouble]):
        assert text in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("trouble", WRITES)
def test_a_store_that_is_only_read_is_told_with_the_mend(server, trouble):
    server.trouble = trouble
    Storage(ROOT).reach()
    with pytest.raises(StorageError) as told:
        Storage(ROOT).ensure_writable()
    for text in (server.url, "bucket pictures", *WRITES[trouble]):
        assert text in str(told.value)


@pytest.mark.parametrize("trouble", ["length", "framed"])
def test_the_two_settings_are_the_mend_of_an_old_server(server, trouble, monkeypatch):
    server.trouble = trouble
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
    Storage(ROOT).ensure_writable()
    Storage(ROOT).write("a.json", b"{}")
    assert server.objects["root/a.json"] == b"{}"


def test_nobody_there(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"bucket pictures at http://127.0.0.1:9 does not answer .*AWS_ENDPOINT_URL"):
        Storage(ROOT).reach()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9")
    with pytest.raises(ValueError, match=r"AWS_ENDPOINT_URL=127.0.0.1:9 is no address: write http://"):
        Storage(ROOT)


def test_another_cloud_that_is_not_there_is_told_too(monkeypatch):
    monkeypatch.setattr(patient_s3, "QUICK_GCS_S", 1)
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"bucket pictures cannot be used .*AWS_ENDPOINT_URL=https://storage.goog"):
        Storage("gs://pictures/root").reach()
