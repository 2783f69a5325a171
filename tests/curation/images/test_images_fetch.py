"""Fetching against a real server on the loopback, and forbidden addresses against sockets that only record."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from picture_makers import encode, smooth

from curation.images.addresses import is_public
from curation.images.fetch import BlockedAddress, FetchPolicy, fetch_all, public_socket
from curation.images.reasons import Reason, Reject

PICTURE = encode(smooth(0, 200, 150), "JPEG")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """A web server in a thread on a free loopback port, with misbehaviour by path; counts requests by path."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.robots: str | int = 404
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_route("GET", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.hits[path] += 1
        self.agents.add(request.headers.get("User-Agent", ""))
        if path == "/robots.txt":
            return web.Response(status=self.robots) if isinstance(self.robots, int) else web.Response(text=self.robots)
        if path.startswith("/hop/"):
            raise web.HTTPFound(request.query.get("to") or f"/hop/{int(path[5:]) + 1}")
        if path.startswith("/status/"):
            return web.Response(status=int(path[8:]))
        return await getattr(self, "_" + path.strip("/").split("/")[0])(request)

    async def _ok(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=PICTURE, content_type="image/jpeg")

    async def _flaky(self, request: web.Request) -> web.StreamResponse:
        if self.hits[request.path] < 3:
            return web.Response(status=503, headers={"Retry-After": "0"})
        return await self._ok(request)

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        if self.hits[request.path] < 2:
            assert request.transport is not None
            request.transport.abort()
        return await self._ok(request)

    async def _short(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(PICTURE))})
        await response.prepare(request)
        await response.write(PICTURE[:100])
        assert request.transport is not None
        request.transport.close()
        return response

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                await response.write(b"x")
                await asyncio.sleep(0.05)
        return response

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(400):
                await response.write(bytes(65536))
        return response

    async def _declared(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(300_000))

    async def _noai(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=PICTURE, headers={"X-Robots-Tag": "noarchive, NoAI"})

    async def _gzip(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=PICTURE, headers={"Content-Encoding": "gzip"})


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def server(running: Server) -> Server:
    running.hits.clear()
    running.agents.clear()
    running.robots = 404
    return running


def policy(**changes: Any) -> FetchPolicy:
    values = {"allow_private_addresses": True, "backoff_s": 0.01, "timeout_s": 5.0, "max_bytes": 200_000, **changes}
    return FetchPolicy(**values)


def one(url: str, **changes: Any) -> bytes | Reject:
    return fetch_all([url], policy(**changes))[0]


def reason(url: str, **changes: Any) -> Reason:
    answer = one(url, **changes)
    assert isinstance(answer, Reject), answer
    return answer.reason


def test_bytes_come_as_sent_in_the_order_asked(server: Server) -> None:
    urls = [server.url(f"/ok/{i}") for i in range(20)] + [server.url("/status/404")]
    answers = fetch_all(urls, policy())
    assert answers[:20] == [PICTURE] * 20
    assert isinstance(answers[20], Reject) and answers[20].reason == Reason.HTTP_404
    assert server.hits["/robots.txt"] == 1  # asked once for the host, though 21 requests began together
    assert server.agents == {FetchPolicy.user_agent} and "sapiens2" in FetchPolicy.user_agent


def test_transient_failures_are_tried_again_and_permanent_ones_not(server: Server) -> None:
    assert one(server.url("/flaky")) == PICTURE and server.hits["/flaky"] == 3
    assert one(server.url("/reset")) == PICTURE and server.hits["/reset"] == 2
    assert reason(server.url("/status/403")) == Reason.HTTP_ERROR and server.hits["/status/403"] == 1
    assert reason(server.url("/status/410")) == Reason.HTTP_404 and server.hits["/status/410"] == 1
    assert reason(server.url("/status/500")) == Reason.HTTP_ERROR and server.hits["/status/500"] == 3
    assert reason(server.url("/short"), retries=1) == Reason.CONNECTION_FAILED and server.hits["/short"] == 2


def test_time_bytes_and_redirects_are_capped(server: Server) -> None:
    assert reason(server.url("/drip"), timeout_s=0.4, retries=0) == Reason.TIMEOUT
    assert reason(server.url("/endless"), retries=0) == Reason.TOO_LARGE
    assert reason(server.url("/declared")) == Reason.TOO_LARGE
    assert reason(server.url("/hop/0"), max_redirects=3) == Reason.TOO_MANY_REDIRECTS
    assert server.hits["/hop/3"] == 1 and server.hits["/hop/4"] == 0
    assert one(server.url("/hop/0?to=/ok")) == PICTURE
    assert reason(server.url("/gzip")) == Reason.UNSUPPORTED


def test_opt_outs_are_honoured(server: Server) -> None:
    assert reason(server.url("/noai")) == Reason.OPT_OUT
    server.robots = "User-agent: sapiens2-curation\nDisallow: /ok/private\n\nUser-agent: *\nAllow: /\n"
    answers = fetch_all([server.url("/ok/private/1"), server.url("/ok/open")], policy())
    assert isinstance(answers[0], Reject) and answers[0].reason == Reason.ROBOTS and answers[1] == PICTURE
    assert server.hits["/ok/private/1"] == 0
    assert reason(server.url("/hop/0?to=/ok/private/2")) == Reason.ROBOTS and server.hits["/ok/private/2"] == 0
    assert one(server.url("/ok/private/1"), respect_robots=False) == PICTURE
    server.robots = 503
    assert reason(server.url("/ok/open"), retries=0) == Reason.ROBOTS
    server.robots = 403
    assert one(server.url("/ok/open")) == PICTURE


NOT_FOR_US = [
    "",
    "file:///etc/passwd",
    "ftp://a/b",
    "gopher://a",
    "//a/b.jpg",
    "data:image/png;base64,AA",
    "javascript:alert(1)",
    "http://",
    "http://user:pw@a.example/",
    "http://[::1",
    "http://a.example:99999/",
]


@pytest.mark.parametrize("url", NOT_FOR_US)
def test_only_plain_web_addresses(url: str) -> None:
    assert reason(url) == Reason.BAD_URL


def test_redirects_cannot_leave_the_web(server: Server) -> None:
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        assert reason(server.url(f"/hop/0?to={target}")) == Reason.BAD_URL


FORBIDDEN = [
    "127.0.0.1", "127.8.9.10", "0.0.0.0", "10.0.0.1", "172.16.5.5", "172.31.255.255", "192.168.1.1", "169.254.169.254",
    "169.254.170.2", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1",
    "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.88.99.1", "::1",
    "::", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "fe80::1%eth0",
]  # fmt: skip
SPELLINGS = ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.1", "0x7f.1", "localhost", "①②⑦.⓪.⓪.①"]


def test_addresses() -> None:
    assert [address for address in FORBIDDEN if is_public(address)] == []
    assert not is_public("localhost") and not is_public("")
    assert all(map(is_public, ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8"]))


class Recorder:
    """Stands where sockets are made: notes the address, lets the real check judge, and never connects."""

    def __init__(self) -> None:
        self.judged: list[str] = []
        self.passed: list[str] = []

    def __call__(self, address: Any) -> socket.socket:
        target = str(address[4][0])
        self.judged.append(target)
        with contextlib.suppress(BlockedAddress):
            public_socket(address).close()
            self.passed.append(target)
        raise BlockedAddress(target)


class Names(AbstractResolver):
    """Answers every name with addresses of our choosing, one list after the other (a rebinding name server)."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        address = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None: ...


def blocked(url: str, resolver: AbstractResolver | None = None) -> Recorder:
    recorder = Recorder()
    answer = fetch_all([url], FetchPolicy(retries=0, timeout_s=5), resolver=resolver, socket_factory=recorder)[0]
    assert isinstance(answer, Reject) and answer.reason == Reason.BLOCKED_ADDRESS, answer
    return recorder


@pytest.mark.parametrize("address", FORBIDDEN)
def test_literal_addresses_never_get_a_socket(address: str) -> None:
    host = f"[{address.split('%')[0]}]" if ":" in address else address
    recorder = blocked(f"http://{host}/latest/meta-data/")
    assert recorder.judged and recorder.passed == []


@pytest.mark.parametrize("host", SPELLINGS)
def test_odd_spellings_of_loopback_never_get_a_socket(host: str) -> None:
    recorder = Recorder()
    answer = fetch_all([f"http://{host}/"], FetchPolicy(retries=0, timeout_s=5), socket_factory=recorder)[0]
    assert isinstance(answer, Reject), answer  # some are no address to the URL library, some no name to the resolver
    assert answer.reason in (Reason.BLOCKED_ADDRESS, Reason.BAD_URL, Reason.CONNECTION_FAILED)
    assert recorder.passed == [] and not any(map(is_public, recorder.judged))


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fd00:ec2::254"])
def test_names_that_resolve_inside_never_get_a_socket(address: str) -> None:
    assert blocked("http://pictures.example/a.jpg", Names(address)).passed == []


def test_a_name_that_changes_its_answer_is_judged_at_every_connection() -> None:
    names = Names("93.184.216.34", "169.254.169.254")
    for passed in (["93.184.216.34"], []):
        recorder = blocked("http://rebind.example/a", names)  # the recorder refuses public addresses too
        assert recorder.passed == passed
    assert recorder.judged == ["169.254.169.254"]


def test_a_redirect_inside_is_blocked(server: Server) -> None:
    """The first connection may use the loopback; the one it redirects to is judged like any other."""
    seen: list[str] = []

    def loopback_server_only(address: Any) -> socket.socket:
        seen.append(str(address[4][0]))
        return socket.socket(*address[:3]) if address[4][1] == server.port else public_socket(address)

    for target in ("http://169.254.169.254/latest/", "http://[::1]:1/", "http://127.0.0.2:81/"):
        answer = fetch_all([server.url(f"/hop/0?to={target}")], policy(), socket_factory=loopback_server_only)[0]
        assert isinstance(answer, Reject) and answer.reason == Reason.BLOCKED_ADDRESS, answer
    assert {"169.254.169.254", "::1", "127.0.0.2"} <= set(seen)


def test_by_default_the_loopback_server_itself_is_out_of_reach(server: Server) -> None:
    answer = fetch_all([server.url("/ok")], FetchPolicy(retries=0))[0]
    assert isinstance(answer, Reject) and answer.reason == Reason.BLOCKED_ADDRESS
    assert not server.hits


def test_a_proxy_of_the_environment_is_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, server.url("/"))
    blocked("http://pictures.example/a.jpg", Names("10.1.2.3"))
    assert not server.hits
