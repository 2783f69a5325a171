"""The body of an answer within a limit of bytes, with gzip undone: what is kept is the file, not its transport."""

from __future__ import annotations

import zlib

import aiohttp

from curation.images.reasons import Reason, Reject

_CHUNK = 1 << 16
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # what zlib calls these containers


async def read_body(response: aiohttp.ClientResponse, limit: int) -> bytes | Reject:
    """At most `limit` bytes, inflated or not; a body of more is a reject before it is held in memory."""
    too_large = Reject(Reason.TOO_LARGE, f"more than {limit} bytes")
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity", *_WINDOWS):
        return Reject(Reason.UNSUPPORTED, f"content encoding {coding}")
    if (response.content_length or 0) > limit:
        return too_large
    inflate = zlib.decompressobj(_WINDOWS[coding]) if coding in _WINDOWS else None
    body = bytearray()
    try:
        async for chunk in response.content.iter_chunked(_CHUNK):
            body += chunk if inflate is None else inflate.decompress(chunk, limit + 1 - len(body))
            if len(body) > limit:
                return too_large
    except zlib.error as error:
        return Reject(Reason.CORRUPT, f"content encoding {coding}: {error}")
    if inflate is not None and not inflate.eof:
        return Reject(Reason.TRUNCATED, f"content encoding {coding} ends early")
    return bytes(body)
