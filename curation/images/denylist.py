"""Pictures that must not come in: by their bytes, their looks or their address, asked before anything else.

A denylist is text, one entry a line; empty lines and what follows a `#` after a space are comments:

    0123...                  32 hex digits: an image_id;  64 hex digits: a sha256 of the bytes
    sha256:  sha1:  md5:     a hash of the bytes, as hash-sharing programmes publish them
    phash:89abcdef01234567   the perceptual hash of a picture: near copies go too (PHASH_RADIUS bits, mirrored or not)
    https://host/picture     an address;  host:example.org  every address of a host and of those below it
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from curation.images.reasons import Reason, Reject

PHASH_RADIUS = 4  # bits; dedup merges hashes this close without a second witness
_HEX = re.compile(r"[0-9a-f]+")
_DIGITS = {"id": 32, "sha256": 64, "sha1": 40, "md5": 32, "phash": 16}
BY_ADDRESS, BY_BYTES = "its address", "its bytes"


@dataclass(frozen=True)
class Denylist:
    """What is refused. Picklable; empty by default."""

    hashes: dict[str, frozenset[str]] = field(default_factory=dict)  # id, sha256, sha1, md5 -> hex digits
    phashes: frozenset[int] = frozenset()
    urls: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, lines: Iterable[str], where: str) -> Denylist:
        """Raises ValueError naming `where` and the line that is no entry."""
        hashes: dict[str, set[str]] = {}
        phashes: set[int] = set()
        urls: set[str] = set()
        hosts: set[str] = set()
        for number, line in enumerate(lines, 1):
            found = entry(line, f"{where}, line {number}")
            if found is None:
                continue
            kind, value = found
            if kind == "phash":
                phashes.add(int(value, 16))
            elif kind in _DIGITS:
                hashes.setdefault(kind, set()).add(value)
            else:
                (urls if kind == "url" else hosts).add(value)
        frozen = {kind: frozenset(values) for kind, values in hashes.items()}
        return cls(frozen, frozenset(phashes), frozenset(urls), frozenset(hosts))

    def __or__(self, other: Denylist) -> Denylist:
        kinds = {*self.hashes, *other.hashes}
        joined = {k: self.hashes.get(k, frozenset()) | other.hashes.get(k, frozenset()) for k in kinds}
        return Denylist(joined, self.phashes | other.phashes, self.urls | other.urls, self.hosts | other.hosts)

    def address(self, url: str) -> Reject | None:
        """Whether an address is refused, before it is fetched."""
        if url in self.urls:
            return denylisted(BY_ADDRESS)
        if self.hosts:
            host = (urlsplit(url).hostname or "").rstrip(".")
            names = host.split(".")
            if any(".".join(names[i:]) in self.hosts for i in range(len(names))):
                return denylisted("its host")
        return None

    def content(self, data: bytes) -> Reject | None:
        """Whether the bytes are refused, before anything reads them."""
        for kind, known in self.hashes.items():
            digest = hashlib.new("sha256" if kind == "id" else kind, data, usedforsecurity=False).hexdigest()
            if digest[: _DIGITS[kind]] in known:
                return denylisted(BY_BYTES)
        return None

    def looks(self, phash: int, mirror: int) -> Reject | None:
        """Whether a picture with this perceptual hash, or that of its mirror image, is refused."""
        for code in (phash, mirror):
            if any((code ^ known).bit_count() <= PHASH_RADIUS for known in self.phashes):
                return denylisted("its looks")
        return None


def denylisted(by: str) -> Reject:
    """The reject of a picture on a denylist; says by what, never what it shows."""
    return Reject(Reason.DENYLISTED, f"on a denylist by {by}")


def entry(line: str, place: str) -> tuple[str, str] | None:
    """(kind, value) of a line, None of an empty one; kinds are id, sha256, sha1, md5, phash, url and host.

    Raises ValueError that begins with `place` for a line that is no entry.
    """
    text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
    if not text:
        return None
    if "://" in text:
        return "url", text
    kind, _, value = text.lower().rpartition(":")
    kind = kind or {32: "id", 64: "sha256"}.get(len(value), "")
    if kind == "host" and value:
        return "host", value.rstrip(".")
    if len(value) == _DIGITS.get(kind) and _HEX.fullmatch(value):
        return kind, value
    raise ValueError(
        f"{place}: {text[:80]!r} is no entry of a denylist; write a URL, 32 or 64 hex digits, host:NAME, or one of "
        "sha256:, sha1:, md5:, phash: before hex digits"
    )
