"""What owners say against mining: X-Robots-Tag, and the TDM Reservation Protocol by header and by file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from curation.images.robots_rules import PathPattern, normalised

TDM_PATH = "/.well-known/tdmrep.json"
_OPT_OUT = {"noai", "noimageai", "noindex", "noimageindex", "none", "noml"}
_WITH_VALUE = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}


def tagged(headers: Iterable[str], product: str) -> str | None:
    """The directive of X-Robots-Tag headers that keeps an agent of this product token out, or None.

    `agent: directive` speaks to that agent alone, through the rest of its header line.
    """
    for header in headers:
        meant = True
        for part in header.split(","):
            name, colon, rest = part.strip().lower().partition(":")
            name = name.strip()
            if colon and name not in _WITH_VALUE:
                meant = name in ("*", product.lower())
                name = rest.strip()
            found = next((word for word in name.split() if word in _OPT_OUT), None)
            if meant and found:
                return found
    return None


def reserves(header: str | None) -> bool:
    """Whether the value of a tdm-reservation header reserves the rights to text and data mining."""
    return (header or "").strip() == "1"


@dataclass(frozen=True)
class Reservations:
    """What a host's tdmrep.json reserves: the longest matching location decides, a reservation among equals."""

    locations: tuple[tuple[PathPattern, bool], ...] = ()

    def covers(self, path: str) -> bool:
        """Whether mining of a path, with its query, is reserved."""
        path = normalised(path)
        found = [(len(where.text), reserved) for where, reserved in self.locations if where.matches(path)]
        return max(found)[1] if found else False


def read_reservations(body: bytes) -> Reservations:
    """The reservations of a tdmrep.json; a file that is no list of locations reserves nothing."""
    try:
        entries = json.loads(body)
    except (ValueError, RecursionError):
        return Reservations()
    held = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return Reservations(
        tuple(
            (PathPattern(normalised(entry["location"])), str(entry["tdm-reservation"]) == "1")
            for entry in held
            if isinstance(entry.get("location"), str) and "tdm-reservation" in entry
        )
    )
