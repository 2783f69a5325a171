"""Why a source did not become an image: one closed list, so that every reject can be counted and explained."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The reject reasons of ingest. The first block concerns reaching the bytes, the second the bytes themselves."""

    BAD_URL = "bad_url"  # not http or https, no host, or credentials in the address
    BLOCKED_ADDRESS = "blocked_address"  # the host resolves to an address that is not on the public internet
    ROBOTS = "robots"
    OPT_OUT = "opt_out"
    HTTP_404 = "http_404"  # 404 and 410: gone for good
    HTTP_ERROR = "http_error"  # any other status that another try would not change
    SERVER_ERROR = "server_error"  # 5xx and the like, after all tries
    RETRY_LATER = "retry_later"  # the host asked for a longer pause than one run waits, or was given up for a while
    TIMEOUT = "timeout"
    NO_SUCH_HOST = "no_such_host"
    CONNECTION_FAILED = "connection_failed"
    TLS_FAILED = "tls_failed"
    BAD_ANSWER = "bad_answer"  # not HTTP, or HTTP that contradicts itself, such as more bytes than it declares
    INCOMPLETE = "incomplete"  # the connection ended before the body did
    TOO_MANY_REDIRECTS = "too_many_redirects"
    UNREADABLE = "unreadable"  # a local or S3 object that could not be read, or changed after it was listed
    TOO_LARGE = "too_large"

    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED = "unsupported"  # an image, in a format or mode that is not decoded here
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    DECOMPRESSION_BOMB = "decompression_bomb"
    ANIMATED = "animated"
    TOO_SMALL = "too_small"
    EXTREME_ASPECT = "extreme_aspect"
    DENYLISTED = "denylisted"


TRANSIENT = frozenset(
    {
        Reason.SERVER_ERROR,
        Reason.RETRY_LATER,
        Reason.TIMEOUT,
        Reason.NO_SUCH_HOST,
        Reason.CONNECTION_FAILED,
        Reason.TLS_FAILED,
        Reason.INCOMPLETE,
    }
)  # another run may fare better


@dataclass(frozen=True)
class Reject:
    """An outcome, not an error: the reason, and what was measured, for a person to read."""

    reason: Reason
    detail: str
