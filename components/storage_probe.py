"""What is wrong with an object store, found out within seconds and told in one line that names the mend.

pyarrow, which does all the work, does not tell a wrong key from a wrong clock, nor an old server from a forbidden
write; so when it fails, boto3 asks the same again and its answer is read.
"""

from __future__ import annotations

import os
import queue
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pyarrow.fs as pafs

from sapiens2.engine.patient_s3 import endpoint_url, located

Answer = TypeVar("Answer")
DEADLINE_S = 20.0
CHECKSUMS = {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required"}
MENDS = {  # error code of S3 -> what to do
    "NoSuchBucket": "create the bucket, or mend its name",
    "InvalidAccessKeyId": "the server does not know this key: mend AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret does not belong to the key: mend AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "the key may not do this: give it the right to list, read, write and delete in the bucket",
    "ExpiredToken": "the session has expired: get new keys and AWS_SESSION_TOKEN",
    "InvalidToken": "mend AWS_SESSION_TOKEN, or unset it where the keys are permanent",
    "PermanentRedirect": "the bucket lies in another region: mend AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket lies in another region: mend AWS_REGION",
    "SlowDown": "the server is overloaded or starting: try again later",
    "ServiceUnavailable": "the server is overloaded or starting: try again later",
}
BY_STATUS = {403: "AccessDenied", 404: "NoSuchBucket", 301: "PermanentRedirect", 503: "ServiceUnavailable"}
NOT_S3 = "what answers there does not speak S3: mend AWS_ENDPOINT_URL"


def unreachable(uri: str) -> str | None:
    """Why the bucket of `uri` cannot be read, with the mend; None when it answers. Takes seconds at most."""
    try:
        if _within(DEADLINE_S, lambda: _bucket_is_there(uri)):
            return None
        found: Exception = FileNotFoundError("there is no such bucket")
    except OSError as error:
        found = error
    return explained(uri, found)


def explained(uri: str, found: Exception) -> str:
    """What pyarrow met when it looked for the bucket, told with the mend."""
    return _told(uri, found, _asked_again(uri, _list_one))


def unwritable(uri: str) -> str | None:
    """Why nothing can be written below `uri`, with the mend; None when a file came back as it was sent."""
    sent = os.urandom(64)
    name = f".probe-{uuid.uuid4().hex[:8]}"
    try:
        back = _within(DEADLINE_S, lambda: _round_trip(uri, name, sent))
        if back == sent:
            return None
        if sent not in back:
            return f"{_where(uri)} does not give back what it was given: {NOT_S3}"
        found: Exception = OSError("a file came back with the frame of its checksum around it")
    except OSError as error:
        found = error
    again = _asked_again(uri, lambda client, bucket, prefix: _put(client, bucket, f"{prefix}/{name}".lstrip("/")))
    if again is None and uri.startswith("s3://"):
        switches = " ".join(f"{name}={value}" for name, value in CHECKSUMS.items())
        return (
            f"{_where(uri)} does not know the checksums that S3 clients send since 2025 ({_short(found)}): "
            f"set {switches}, for the workers of Ray as well"
        )
    return _told(uri, found, again)


def _bucket_is_there(uri: str) -> bool:
    system, path = located(uri, patient=False)
    return bool(system.get_file_info(path.partition("/")[0]).type == pafs.FileType.Directory)


def _round_trip(uri: str, name: str, data: bytes) -> bytes:
    system, path = located(uri, patient=False)
    with system.open_output_stream(f"{path}/{name}") as stream:
        stream.write(data)
    with system.open_input_stream(f"{path}/{name}") as stream:
        back = bytes(stream.read())
    system.delete_file(f"{path}/{name}")
    return back


def _asked_again(uri: str, ask: Callable[[Any, str, str], None]) -> Exception | None:
    """What boto3, without the newer checksums, meets when it asks the same; None when all is well or it cannot ask."""
    if not uri.startswith("s3://"):
        return None
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    quick = {"connect_timeout": 2, "read_timeout": 5, "retries": {"total_max_attempts": 1}}
    switches = {name.removeprefix("AWS_").lower(): value for name, value in CHECKSUMS.items()}
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        session = boto3.session.Session()  # reads the environment as it is now
        client = session.client(
            "s3", endpoint_url=endpoint_url(), region_name=region, config=Config(**quick, **switches)
        )
        ask(client, bucket, prefix.rstrip("/"))
    except (ClientError, BotoCoreError, ValueError) as error:
        return error
    return None


def _list_one(client: Any, bucket: str, prefix: str) -> None:
    client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)


def _put(client: Any, bucket: str, key: str) -> None:
    client.put_object(Bucket=bucket, Key=key, Body=b"sapiens2")
    client.delete_object(Bucket=bucket, Key=key)


def _told(uri: str, found: Exception, again: Exception | None) -> str:
    """One line: where, what, the mend."""
    if not uri.startswith("s3://"):
        return (
            f"{_where(uri)} cannot be used ({_short(found)}): look at the bucket's name, the network and the "
            "credentials; only folders and s3:// are tested (Google's store speaks S3 too, with HMAC keys and "
            "AWS_ENDPOINT_URL=https://storage.googleapis.com)"
        )
    if again is None:
        return (
            f"{_where(uri)} cannot be used ({_short(found)}): look at the network, the keys, "
            "and AWS_ENDPOINT_URL where the store is not Amazon's"
        )
    response = getattr(again, "response", None)
    if response is None:
        return _told_of_a_connection(uri, again)
    error, status = response.get("Error", {}), response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = error.get("Code", "")
    code = code if code in MENDS or not code.isdigit() else BY_STATUS.get(int(code), code)
    if code == "RequestTimeTooSkewed":
        theirs = response["ResponseMetadata"].get("HTTPHeaders", {}).get("date", "another time")
        mend = f"the clock here says {datetime.now(UTC):%a, %d %b %Y %H:%M:%S} GMT, the server's {theirs}: set it (NTP)"
    else:
        mend = MENDS.get(code) or MENDS.get(BY_STATUS.get(status, "")) or NOT_S3
    return f"{_where(uri)} refuses ({code or status}{_detail(error.get('Message'))}): {mend}"


def _told_of_a_connection(uri: str, error: Exception) -> str:
    kind = type(error).__name__
    if kind in ("NoCredentialsError", "PartialCredentialsError"):
        return f"{_where(uri)}: no keys are set: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if kind in ("ResponseParserError", "ParamValidationError", "ValueError"):
        mend = NOT_S3 if kind == "ResponseParserError" else "mend the root, or AWS_ENDPOINT_URL"
        return f"{_where(uri)} cannot be used ({_short(error)}): {mend}"
    return (
        f"{_where(uri)} does not answer ({kind}): start the server, mend AWS_ENDPOINT_URL, "
        "or look at the network between here and there"
    )


def _where(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    bucket = rest.partition("/")[0].partition("?")[0]
    if scheme != "s3":
        return f"the root {uri}: the bucket {bucket}"
    return f"the root {uri}: the bucket {bucket} at {endpoint_url() or 'Amazon S3 (AWS_ENDPOINT_URL is not set)'}"


def _detail(message: str | None) -> str:
    text = " ".join((message or "").split())
    return f", {text[:120]}" if text else ""


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """The answer, or what the question raises. Raises TimeoutError when neither comes in time."""
    box: queue.Queue[tuple[bool, Any]] = queue.Queue()

    def work() -> None:
        try:
            box.put((True, ask()))
        except Exception as error:
            box.put((False, error))

    threading.Thread(target=work, name="probe", daemon=True).start()
    try:
        well, answer = box.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if not well:
        raise answer
    found: Answer = answer
    return found
