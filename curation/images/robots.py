"""What a host's own files allow: robots.txt (RFC 9309) and the TDM reservations, each asked once per host and TTL."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from yarl import URL

from curation.images import opt_out, robots_rules
from curation.images.host_state import HostState
from curation.images.reasons import TRANSIENT, Reason, Reject

_MAX_BYTES = 500 * 1024  # RFC 9309 asks parsers to read at least this much
_UNREADABLE_TTL_S = 300.0
_LEARNT_FOR_S = 60.0  # how long a worker trusts what it parsed before it looks at the shared answer again


@dataclass(frozen=True)
class Standing:
    """What an origin says: rules and reservations, or why its files cannot be read."""

    rules: robots_rules.RobotsRules
    reservations: opt_out.Reservations
    unreadable: Reject | None = None

    def refusal(self, url: URL) -> Reject | None:
        """Why `url`, of this origin, may not be fetched, or None."""
        if self.unreadable is not None:
            return self.unreadable
        if not self.rules.allows(url.raw_path_qs):
            return Reject(Reason.ROBOTS, "disallowed by robots.txt")
        if self.reservations.covers(url.raw_path_qs):
            return Reject(Reason.OPT_OUT, "reserved by tdmrep.json")
        return None


class Robots:
    """Answers for all hosts. A missing robots.txt allows everything, one that cannot be read allows nothing for now."""

    def __init__(
        self, product: str, body: Callable[[str], Awaitable[bytes | Reject]], hosts: HostState, ttl_s: float, tdm: bool
    ) -> None:
        self._product, self._body, self._hosts, self._ttl_s, self._tdm = product, body, hosts, ttl_s, tdm
        self._learnt: dict[str, tuple[float, Standing]] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def standing(self, url: URL) -> Standing:
        """What the origin of `url` says, asked when it is not known."""
        origin = str(url.origin())
        async with self._asking[origin]:
            until, standing = self._learnt.get(origin, (0.0, None))
            if standing is None or until < time.monotonic():
                standing = await self._standing(origin)
                self._learnt[origin] = (time.monotonic() + min(_LEARNT_FOR_S, self._ttl_s), standing)
        return standing

    async def _standing(self, origin: str) -> Standing:
        text = await self._file(origin, "/robots.txt")
        if isinstance(text, Reject):
            return Standing(robots_rules.RobotsRules(), opt_out.Reservations(), text)
        rules = robots_rules.parse(text.decode("utf-8", "replace"), self._product)
        if not self._tdm or not rules.allows(opt_out.TDM_PATH):
            return Standing(rules, opt_out.Reservations())
        body = await self._file(origin, opt_out.TDM_PATH)
        return Standing(rules, opt_out.read_reservations(b"[]" if isinstance(body, Reject) else body))

    async def _file(self, origin: str, path: str) -> bytes | Reject:
        async def load() -> tuple[dict[str, Any], float]:
            body = await self._body(origin + path)
            if isinstance(body, Reject):
                answer = {"reason": body.reason.value, "detail": body.detail}
                return answer, min(self._ttl_s, _UNREADABLE_TTL_S) if body.reason in TRANSIENT else self._ttl_s
            return {"body": base64.b85encode(body[:_MAX_BYTES]).decode()}, self._ttl_s

        answer = await self._hosts.kept(origin + path, load)
        if "body" in answer:
            return base64.b85decode(answer["body"])
        reject = Reject(Reason(answer["reason"]), answer["detail"])
        if reject.reason == Reason.SERVER_ERROR:
            return Reject(Reason.RETRY_LATER, f"{path} cannot be read: {reject.detail}")
        if reject.reason in TRANSIENT or reject.reason == Reason.BLOCKED_ADDRESS:
            return reject  # the host itself cannot be reached, which says more than its files
        return b""
