"""How far fetching may go, and which addresses and failures are which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from yarl import URL

from curation.images.reasons import Reason, Reject


@dataclass(frozen=True)
class FetchPolicy:
    """How far a fetch may go. Sizes in bytes, times in seconds."""

    max_bytes: int = 64 << 20
    timeout_s: float = 30.0
    max_redirects: int = 5
    retries: int = 2
    backoff_s: float = 0.5
    patience_s: float = 30.0  # the longest pause that a host may ask for and still be waited for
    concurrency: int = 32
    per_host: int = 4
    host_interval_s: float = 0.1  # between the starts of two requests to one host, over all workers of a machine
    max_crawl_delay_s: float = 10.0  # a longer crawl-delay in robots.txt counts as this
    respect_robots: bool = True
    respect_tdm: bool = True
    robots_ttl_s: float = 86_400.0  # RFC 9309: not longer than a day
    user_agent: str = "sapiens2-curation/0.1 (builds image datasets; honours robots.txt and opt-out headers)"
    allow_private_addresses: bool = False
    state_folder: str | None = None  # what workers share about hosts; None keeps it for one call

    @property
    def product(self) -> str:
        """The name that robots.txt and X-Robots-Tag address us by."""
        return self.user_agent.split("/")[0]


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


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as a date; None without one that can be read."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
