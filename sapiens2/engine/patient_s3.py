"""S3 through pyarrow with patience: a store that answers 503 for half a minute, or cuts connections, ends no run.

pyarrow's own default gives up on a 503 after six seconds.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

ATTEMPTS = 12  # with pauses that double: about a minute and a half


def located(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of an object store's URI and the path inside it, patient where the store is S3.

    Endpoint, keys and region come from the environment; options in the URI's query leave it as pyarrow makes it.
    """
    system, path = fs.FileSystem.from_uri(uri)
    if not uri.startswith("s3://") or "?" in uri:
        return system, path
    options: dict[str, Any] = {"region": system.region}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        where = urlsplit(endpoint)
        options |= {"scheme": where.scheme, "endpoint_override": where.netloc + where.path.rstrip("/")}
    return fs.S3FileSystem(retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS), **options), path
