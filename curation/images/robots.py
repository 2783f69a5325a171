"""robots.txt (RFC 9309), asked once per host: which addresses of it we may fetch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.robotparser import RobotFileParser

from yarl import URL

from curation.images.reasons import Reason, Reject

_MAX_BYTES = 500 * 1024  # RFC 9309 asks parsers to read at least this much


class Robots:
    """Keeps the rules of each origin. A missing file allows everything, one that cannot be read allows nothing."""

    def __init__(self, user_agent: str, body: Callable[[str], Awaitable[bytes | Reject]]) -> None:
        self._agent = user_agent.split("/")[0]
        self._body = body
        self._rules: dict[str, asyncio.Task[RobotFileParser | Reject]] = {}

    async def refusal(self, url: URL) -> Reject | None:
        """Why `url` may not be fetched, or None; concurrent questions about one host share one request."""
        origin = str(url.origin())
        if origin not in self._rules:
            self._rules[origin] = asyncio.ensure_future(self._load(origin))
        rules = await self._rules[origin]
        if isinstance(rules, Reject):
            return rules
        return None if rules.can_fetch(self._agent, str(url)) else Reject(Reason.ROBOTS, "disallowed by robots.txt")

    async def _load(self, origin: str) -> RobotFileParser | Reject:
        body = await self._body(f"{origin}/robots.txt")
        if isinstance(body, Reject):
            if body.reason == Reason.HTTP_ERROR and body.detail.startswith("status 5"):
                return Reject(Reason.ROBOTS, f"robots.txt cannot be read: {body.detail}")
            if body.reason not in (Reason.HTTP_404, Reason.HTTP_ERROR):
                return body  # the host itself cannot be reached, which says more than its robots.txt
            body = b""
        rules = RobotFileParser()
        rules.parse(body[:_MAX_BYTES].decode("utf-8", "replace").splitlines())
        return rules
