"""S3 through pyarrow with patience: a store that answers 503 for half a minute, or cuts connections, ends no run.

pyarrow's own default gives up on a 503 after six seconds. The first look at a store is made without patience, for then
a wrong address is more likely than an outage.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

ATTEMPTS = 12  # with pauses that double: about a minute and a half
QUICK_ATTEMPTS = 2  # one cut connection is no news
QUICK_CONNECT_S, QUICK_ANSWER_S = 2.0, 8.0
QUICK_GCS_S = 2


def endpoint_url() -> str | None:
    """The address of the S3 server, where it is not Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def located(uri: str, *, patient: bool = True) -> tuple[fs.FileSystem, str]:
    """The file system of an object store's URI and the path inside it, patient where the store is S3.

    Endpoint, keys and region come from the environment; options in the URI's query leave it as pyarrow makes it.
    Without `patient` an operation fails within seconds, on S3 and on gs://. Raises ValueError for an endpoint
    that is no address.
    """
    if uri.startswith(("gs://", "gcs://")) and "?" not in uri and not patient:
        return fs.FileSystem.from_uri(f"{uri}?retry_limit_seconds={QUICK_GCS_S}")
    if not uri.startswith("s3://") or "?" in uri:
        return fs.FileSystem.from_uri(uri)
    path = uri.removeprefix("s3://").rstrip("/")
    # A small file is one request, and so there whole or not at all; else pyarrow sends it in parts.
    options: dict[str, Any] = {"allow_delayed_open": True}
    options["region"] = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint := endpoint_url():
        where = urlsplit(endpoint)
        if where.scheme not in ("http", "https") or not where.netloc:
            raise ValueError(f"AWS_ENDPOINT_URL={endpoint} is no address: write http://host:port or https://host")
        options |= {"scheme": where.scheme, "endpoint_override": where.netloc + where.path.rstrip("/")}
    elif not options["region"]:  # Amazon's servers tell in which region a bucket lies
        options["region"] = fs.FileSystem.from_uri(uri)[0].region
    if not patient:
        options |= {"connect_timeout": QUICK_CONNECT_S, "request_timeout": QUICK_ANSWER_S}
    attempts = ATTEMPTS if patient else QUICK_ATTEMPTS
    return fs.S3FileSystem(retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts), **options), path
