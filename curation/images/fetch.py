"""Fetching pictures from the web, safely and politely: asyncio over aiohttp.

http and https only. Every connection, those after a redirect too, is refused unless the address it is about to reach is
public (curation.images.addresses). Bytes, time and redirects are capped; requests to one host keep a distance; a host's
robots.txt and TDM reservations, opt-out headers and Retry-After are honoured; transient failures are tried again with
back-off.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from curation.images import opt_out
from curation.images.addresses import is_public
from curation.images.fetch_body import read_body
from curation.images.fetch_policy import FetchPolicy, checked_url, retry_after_s
from curation.images.fetched import Fetched
from curation.images.host_state import HostState
from curation.images.reasons import TRANSIENT, Reason, Reject
from curation.images.robots import Robots

_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
_ASKS_FOR_REST = (429, 503)
_TRY_AGAIN = TRANSIENT - {Reason.RETRY_LATER, Reason.TLS_FAILED}

SocketFactory = Callable[[Any], socket.socket]


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
    with Fetched() as fetched:
        fetch_into(fetched, urls, policy, resolver=resolver, socket_factory=socket_factory)
        return [fetched[url] for url in urls]


def fetch_into(
    fetched: Fetched,
    urls: Sequence[str],
    policy: FetchPolicy,
    *,
    resolver: AbstractResolver | None = None,
    socket_factory: SocketFactory | None = None,
) -> None:
    """`fetch_all` for many or large bodies: each leaves memory for `fetched` as it comes. A URL is fetched once."""
    with ExitStack() as stack:
        folder = policy.state_folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="sapiens2-hosts-"))
        asyncio.run(_fetch(fetched, urls, policy, HostState(Path(folder)), resolver, socket_factory))


async def _fetch(
    fetched: Fetched,
    urls: Sequence[str],
    policy: FetchPolicy,
    hosts: HostState,
    resolver: AbstractResolver | None,
    factory: SocketFactory | None,
) -> None:
    if factory is None and not policy.allow_private_addresses:
        factory = public_socket
    connector = aiohttp.TCPConnector(
        resolver=resolver, socket_factory=factory, limit=policy.concurrency, limit_per_host=policy.per_host
    )
    session = aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=policy.timeout_s),
        headers={"User-Agent": policy.user_agent, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
        auto_decompress=False,  # a compressed answer could be a bomb; read_body inflates within the limit
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,  # a proxy would connect for us, unchecked
    )
    async with session:
        fetcher = Fetcher(session, policy, hosts)

        async def one(url: str) -> None:
            fetched[url] = await fetcher.fetch(url)

        await asyncio.gather(*(one(url) for url in dict.fromkeys(urls)))


class Fetcher:
    """One session's worth of fetching."""

    def __init__(self, session: aiohttp.ClientSession, policy: FetchPolicy, hosts: HostState) -> None:
        self._session, self._policy, self._hosts = session, policy, hosts
        self._gate = asyncio.Semaphore(policy.concurrency)
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(policy.per_host))
        self._queues: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._robots = Robots(
            policy.product, lambda url: self.fetch(url, robots=False), hosts, policy.robots_ttl_s, policy.respect_tdm
        )

    async def fetch(self, url: str, *, robots: bool = True) -> bytes | Reject:
        """The body at `url`, after retries; `robots` whether to ask the host's own files first."""
        attempt = 0
        while True:
            answer = await self._follow(url, robots=robots and self._policy.respect_robots)
            again = isinstance(answer, Reject) and answer.reason in _TRY_AGAIN
            if not again or attempt == self._policy.retries:
                return answer
            await asyncio.sleep(min(self._policy.backoff_s * 2**attempt, self._policy.patience_s))
            attempt += 1

    async def _follow(self, url: str, *, robots: bool) -> bytes | Reject:
        for _ in range(self._policy.max_redirects + 1):
            target = checked_url(url)
            if isinstance(target, Reject):
                return target
            interval_s = self._policy.host_interval_s
            if robots:
                standing = await self._robots.standing(target)
                refusal = standing.refusal(target)
                if refusal is not None:
                    return refusal
                delay_s = min(standing.rules.crawl_delay_s or 0.0, self._policy.max_crawl_delay_s)
                interval_s = max(interval_s, delay_s)
            answer = await self._in_turn(target, interval_s)
            if not isinstance(answer, str):
                return answer
            url = answer
        return Reject(Reason.TOO_MANY_REDIRECTS, f"more than {self._policy.max_redirects}")

    async def _in_turn(self, url: URL, interval_s: float) -> bytes | Reject | str:
        """One request when the host's turn comes; waiting for a slow host holds no other host up."""
        host = str(url.host)
        async with self._slots[host]:
            async with self._queues[host]:
                refusal = await self._wait(host, interval_s)
            if refusal is not None:
                return refusal
            try:
                return await self._get(url)
            finally:
                self._gate.release()

    async def _wait(self, host: str, interval_s: float) -> Reject | None:
        """Returns at the host's turn with the gate acquired, so that the request goes at once; or why there is none."""
        while True:
            await self._gate.acquire()
            wait_s, granted = self._hosts.turn(host, interval_s, self._policy.patience_s)
            if granted and wait_s == 0:
                return None
            self._gate.release()
            if not granted:
                return Reject(Reason.RETRY_LATER, f"the host rests for {wait_s:.0f} s more")
            await asyncio.sleep(wait_s)

    async def _get(self, url: URL) -> bytes | Reject | str:
        """One request: the body, a reject, or the address it redirects to."""
        host = str(url.host)
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                self._hosts.connected(host, True)
                if response.status in _REDIRECTS and "Location" in response.headers:
                    return str(url.join(URL(response.headers["Location"])))
                refusal = self._refusal(response, host)
                return refusal if refusal is not None else await read_body(response, self._policy.max_bytes)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            reject = _failure(error, self._policy.timeout_s)
            if reject.reason in (Reason.CONNECTION_FAILED, Reason.NO_SUCH_HOST, Reason.TIMEOUT):
                self._hosts.connected(host, False)
            return reject

    def _refusal(self, response: aiohttp.ClientResponse, host: str) -> Reject | None:
        if response.status in (404, 410):
            return Reject(Reason.HTTP_404, f"status {response.status}")
        if response.status in _TRANSIENT_STATUS:
            rest_s = retry_after_s(response.headers)
            if rest_s is not None and response.status in _ASKS_FOR_REST:
                self._hosts.pause(host, rest_s)
            return Reject(Reason.SERVER_ERROR, f"status {response.status}")
        if response.status != 200:
            return Reject(Reason.HTTP_ERROR, f"status {response.status}")
        directive = opt_out.tagged(response.headers.getall("X-Robots-Tag", []), self._policy.product)
        if directive is not None:
            return Reject(Reason.OPT_OUT, f"X-Robots-Tag: {directive}")
        if self._policy.respect_tdm and opt_out.reserves(response.headers.get("tdm-reservation")):
            return Reject(Reason.OPT_OUT, "tdm-reservation: 1")
        return None


def _failure(error: BaseException, timeout_s: float) -> Reject:
    """The reject that an exception of a request means."""
    if isinstance(error, TimeoutError):
        return Reject(Reason.TIMEOUT, f"no complete answer in {timeout_s} s")
    inner = getattr(error, "os_error", error)
    if isinstance(inner, BlockedAddress):
        return Reject(Reason.BLOCKED_ADDRESS, str(inner.strerror))
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Reject(Reason.NO_SUCH_HOST, "the name has no address")
    if isinstance(error, aiohttp.ClientSSLError):
        return Reject(Reason.TLS_FAILED, type(error).__name__)
    if isinstance(error, aiohttp.ClientPayloadError):
        return Reject(Reason.INCOMPLETE, "the body ended early")
    if isinstance(error, aiohttp.ClientResponseError):
        return Reject(Reason.BAD_ANSWER, " ".join(error.message.split())[:120])
    if isinstance(error, aiohttp.InvalidURL):
        return Reject(Reason.BAD_URL, str(error))
    if isinstance(error, (aiohttp.ClientError, OSError)):
        return Reject(Reason.CONNECTION_FAILED, type(error).__name__)
    return Reject(Reason.BAD_URL, str(error))
