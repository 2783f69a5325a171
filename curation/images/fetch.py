"""Fetching pictures from the web, safely and politely: asyncio over aiohttp.

http and https only. Every connection, those after a redirect too, is refused unless the address it is about to reach is
public (curation.images.addresses). Bytes, time and redirects are capped, robots.txt is asked once per host and policy,
opt-out headers are honoured, transient failures are retried with back-off. Bytes are kept as sent.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from curation.images.addresses import is_public
from curation.images.reasons import Reason, Reject
from curation.images.robots import Robots

_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_OPT_OUT = {"noai", "noimageai", "noindex", "none", "noml"}
_CHUNK = 1 << 16
_MAX_WAIT_S = 30.0

SocketFactory = Callable[[Any], socket.socket]


@dataclass(frozen=True)
class FetchPolicy:
    """How far a fetch may go. Sizes in bytes, times in seconds."""

    max_bytes: int = 64 << 20
    timeout_s: float = 30.0
    max_redirects: int = 5
    retries: int = 2
    backoff_s: float = 0.5
    concurrency: int = 32
    per_host: int = 4
    respect_robots: bool = True
    user_agent: str = "sapiens2-curation/0.1 (builds image datasets; honours robots.txt and opt-out headers)"
    allow_private_addresses: bool = False


class BlockedAddress(OSError):
    """The connection was refused here: the address is not on the public internet."""

    def __init__(self, address: str) -> None:
        super().__init__(errno.EACCES, f"{address} is not a public address")
        self.address = address


def public_socket(address: Any) -> socket.socket:
    """A socket for aiohttp's (family, type, proto, name, sockaddr), refused with BlockedAddress before any packet."""
    family, kind, proto, _, target = address
    if not is_public(str(target[0])):
        raise BlockedAddress(str(target[0]))
    return socket.socket(family, kind, proto)


def fetch_all(
    urls: Sequence[str],
    policy: FetchPolicy,
    *,
    resolver: AbstractResolver | None = None,
    socket_factory: SocketFactory | None = None,
) -> list[bytes | Reject]:
    """The bytes of each URL, in order, or why there are none. `resolver` and `socket_factory` are seams for tests."""
    return asyncio.run(_fetch_all(urls, policy, resolver, socket_factory))


async def _fetch_all(
    urls: Sequence[str], policy: FetchPolicy, resolver: AbstractResolver | None, factory: SocketFactory | None
) -> list[bytes | Reject]:
    if factory is None and not policy.allow_private_addresses:
        factory = public_socket
    connector = aiohttp.TCPConnector(
        resolver=resolver, socket_factory=factory, limit=policy.concurrency, limit_per_host=policy.per_host
    )
    session = aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=policy.timeout_s),
        headers={"User-Agent": policy.user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
        auto_decompress=False,  # a compressed answer could be a bomb, and its bytes would not be as sent
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,  # a proxy would connect for us, unchecked
    )
    async with session:
        fetcher = Fetcher(session, policy)
        gate = asyncio.Semaphore(policy.concurrency)

        async def one(url: str) -> bytes | Reject:
            async with gate:
                return await fetcher.fetch(url)

        return list(await asyncio.gather(*(one(url) for url in urls)))


class _Again(Exception):
    """A transient failure: worth another try, unless tries run out."""

    def __init__(self, reject: Reject, wait_s: float = 0.0) -> None:
        super().__init__(reject.detail)
        self.reject, self.wait_s = reject, wait_s


class Fetcher:
    """One session's worth of fetching; robots.txt answers are kept for its lifetime."""

    def __init__(self, session: aiohttp.ClientSession, policy: FetchPolicy) -> None:
        self._session, self._policy = session, policy
        self._robots = Robots(policy.user_agent, lambda url: self.fetch(url, robots=False))

    async def fetch(self, url: str, *, robots: bool = True) -> bytes | Reject:
        """The body at `url`, after retries; `robots` whether to ask the host's robots.txt first."""
        for attempt in range(self._policy.retries + 1):
            try:
                return await self._follow(url, robots=robots and self._policy.respect_robots)
            except _Again as again:
                last = again.reject
                wait_s = max(again.wait_s, self._policy.backoff_s * 2**attempt)
                if attempt < self._policy.retries:
                    await asyncio.sleep(min(wait_s, _MAX_WAIT_S))
        return last

    async def _follow(self, url: str, *, robots: bool) -> bytes | Reject:
        for _ in range(self._policy.max_redirects + 1):
            target = checked_url(url)
            if isinstance(target, Reject):
                return target
            refusal = await self._robots.refusal(target) if robots else None
            if refusal is not None:
                return refusal
            answer = await self._get(target)
            if not isinstance(answer, str):
                return answer
            url = answer
        return Reject(Reason.TOO_MANY_REDIRECTS, f"more than {self._policy.max_redirects}")

    async def _get(self, url: URL) -> bytes | Reject | str:
        """One request: the body, a reject, or the address it redirects to. Raises _Again."""
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    return str(url.join(URL(response.headers["Location"])))
                refusal = self._refusal(response)
                return refusal if refusal is not None else await self._body(response)
        except TimeoutError as error:
            raise _Again(Reject(Reason.TIMEOUT, f"no complete answer in {self._policy.timeout_s} s")) from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, BlockedAddress):
                return Reject(Reason.BLOCKED_ADDRESS, str(error.os_error.strerror))
            raise _Again(Reject(Reason.CONNECTION_FAILED, type(error).__name__)) from error
        except BlockedAddress as error:
            return Reject(Reason.BLOCKED_ADDRESS, str(error.strerror))
        except aiohttp.InvalidURL as error:
            return Reject(Reason.BAD_URL, str(error))
        except (aiohttp.ClientError, OSError) as error:
            raise _Again(Reject(Reason.CONNECTION_FAILED, type(error).__name__)) from error
        except ValueError as error:
            return Reject(Reason.BAD_URL, str(error))

    def _refusal(self, response: aiohttp.ClientResponse) -> Reject | None:
        if response.status in (404, 410):
            return Reject(Reason.HTTP_404, f"status {response.status}")
        if response.status in _TRANSIENT:
            raise _Again(Reject(Reason.HTTP_ERROR, f"status {response.status}"), _retry_after_s(response))
        if response.status != 200:
            return Reject(Reason.HTTP_ERROR, f"status {response.status}")
        tags = " ".join(response.headers.getall("X-Robots-Tag", [])).lower().replace(",", " ").split()
        if _OPT_OUT.intersection(tags):
            return Reject(Reason.OPT_OUT, f"X-Robots-Tag: {' '.join(tags)}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            return Reject(Reason.UNSUPPORTED, f"content encoding {response.headers['Content-Encoding']}")
        return None

    async def _body(self, response: aiohttp.ClientResponse) -> bytes | Reject:
        limit = self._policy.max_bytes
        too_large = Reject(Reason.TOO_LARGE, f"more than {limit} bytes")
        if (response.content_length or 0) > limit:
            return too_large
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            body += chunk
            if len(body) > limit:
                return too_large
        return bytes(body)


def checked_url(text: str) -> URL | Reject:
    """An http(s) URL with a host and without credentials, or why not."""
    try:
        url = URL(text.strip())
    except ValueError as error:
        return Reject(Reason.BAD_URL, str(error))
    if url.scheme not in ("http", "https"):
        return Reject(Reason.BAD_URL, f"scheme {url.scheme!r} is not http or https")
    if not url.host or url.user is not None:
        return Reject(Reason.BAD_URL, "has credentials" if url.host else "has no host")
    return url


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0
