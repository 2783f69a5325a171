"""A web server on the loopback that misbehaves by path, in a thread of its own, and counts what is asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import threading
import time
import zlib
from collections import Counter

from aiohttp import web
from picture_makers import encode, smooth

PICTURE = encode(smooth(0, 200, 150), "JPEG")


class Server:
    """`hits` by path and `times` of arrival by path; `robots` and `tdmrep` are a status or the text of the file."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.times: list[tuple[str, float]] = []
        self.agents: set[str] = set()
        self.robots: str | int = 404
        self.tdmrep: str | int = 404
        self.down = False  # whether everything below /later/ answers 503
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def reset(self) -> None:
        """As new."""
        self.hits.clear()
        self.times.clear()
        self.agents.clear()
        self.robots = self.tdmrep = 404
        self.down = False

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
        self.times.append((path, time.monotonic()))
        self.agents.add(request.headers.get("User-Agent", ""))
        for name, held in (("/robots.txt", self.robots), ("/.well-known/tdmrep.json", self.tdmrep)):
            if path == name:
                return web.Response(status=held) if isinstance(held, int) else web.Response(text=held)
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

    async def _busy(self, request: web.Request) -> web.StreamResponse:
        """503 once, with the Retry-After of the query."""
        if self.hits[request.path] < 2:
            return web.Response(status=503, headers={"Retry-After": request.query["after"]})
        return await self._ok(request)

    async def _later(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=503) if self.down else await self._ok(request)

    async def _seed(self, request: web.Request) -> web.StreamResponse:
        """A picture of its own for every number."""
        seed = int(request.path.rsplit("/", 1)[1])
        return web.Response(body=encode(smooth(seed, 200, 150), "JPEG"), content_type="image/jpeg")

    async def _unsteady(self, request: web.Request) -> web.StreamResponse:
        """Every twentieth picture meets a reset, every other twentieth a 503, at the first request only."""
        number = int(request.path.rsplit("/", 1)[1])
        if self.hits[request.path] < 2 and number % 20 == 0:
            assert request.transport is not None
            request.transport.abort()
        if self.hits[request.path] < 2 and number % 20 == 10:
            return web.Response(status=503)
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

    async def _length(self, request: web.Request) -> web.StreamResponse:
        """A raw answer with the Content-Length of the query, whatever the body is."""
        assert request.transport is not None
        length = request.query["of"]
        request.transport.write(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + PICTURE)
        request.transport.close()
        return web.Response()

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                await response.write(b"x")
                await asyncio.sleep(0.05)
        return response

    async def _silent(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(2)
        return await self._ok(request)

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(400):
                await response.write(bytes(65536))
        return response

    async def _large(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(3 << 20))

    async def _declared(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(300_000))

    async def _noai(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=PICTURE, headers={"X-Robots-Tag": "noarchive, NoAI"})

    async def _tdm(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=PICTURE, headers={"tdm-reservation": request.path.rsplit("/", 1)[1]})

    async def _gzip(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=gzip.compress(PICTURE), headers={"Content-Encoding": "gzip"})

    async def _deflate(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=zlib.compress(PICTURE), headers={"Content-Encoding": "deflate"})

    async def _bomb(self, request: web.Request) -> web.StreamResponse:
        """A hundred million zeros in a hundred thousand bytes."""
        return web.Response(body=_BOMB, headers={"Content-Encoding": "gzip"})

    async def _lies(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=PICTURE, headers={"Content-Encoding": request.path.rsplit("/", 1)[1]})


def _bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


_BOMB = _bomb(96 << 20)
