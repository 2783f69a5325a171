"""The rules of one robots.txt as RFC 9309 has them: the longest match decides, `*` and `$` are wildcards.

The standard library's parser takes the first match and knows no wildcards, so it reads many files otherwise than their
authors meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

_PRODUCT = re.compile(r"[A-Za-z0-9_-]+")  # digits too: our own name has one


@dataclass(frozen=True)
class PathPattern:
    """A path prefix in which `*` stands for any characters and a final `$` for the end of the path."""

    text: str

    def matches(self, path: str) -> bool:
        """Whether a normalised path (with its query) begins as the pattern says."""
        body, anchored = (self.text[:-1], True) if self.text.endswith("$") else (self.text, False)
        first, *rest = body.split("*")
        if not path.startswith(first):
            return False
        at = len(first)
        for piece in rest[:-1] if anchored else rest:  # leftmost is best: it leaves the most for what follows
            at = path.find(piece, at)
            if at < 0:
                return False
            at += len(piece)
        if not anchored:
            return True
        return path.endswith(rest[-1]) and len(path) - len(rest[-1]) >= at if rest else at == len(path)


@dataclass(frozen=True)
class RobotsRules:
    """What one robots.txt says to one agent."""

    rules: tuple[tuple[bool, PathPattern], ...] = ()  # (whether it allows, where)
    crawl_delay_s: float | None = None  # not in the RFC, but widely written

    def allows(self, path: str) -> bool:
        """Whether a path with its query, such as `/a/b.jpg?x=1`, may be fetched."""
        path = normalised(path)
        found = [(len(where.text), allow) for allow, where in self.rules if where.matches(path)]
        return max(found)[1] if found else True  # of equally long ones, allow wins


def normalised(path: str) -> str:
    """A path with percent-encoding in one spelling: what need not be encoded is not, the rest in upper case."""
    return quote(unquote_to_bytes(path.replace("%2F", "%252F").replace("%2f", "%252F")), safe="/?&=+,;:@!$'()*~%")


def parse(text: str, product: str) -> RobotsRules:
    """The rules for an agent's product token: those of all groups that name it, else those of all groups for `*`."""
    ours: list[tuple[str, str]] = []
    everyones: list[tuple[str, str]] = []
    named = False
    for agents, lines in _groups(text):
        if product.lower() in agents:
            named = True
            ours += lines
        if "*" in agents:
            everyones += lines
    return _rules(ours if named else everyones)


def _groups(text: str) -> list[tuple[set[str], list[tuple[str, str]]]]:
    """(agents, lines) of each group; consecutive user-agent lines open one group."""
    groups: list[tuple[set[str], list[tuple[str, str]]]] = []
    opening = False
    for line in text.removeprefix("\ufeff").splitlines():
        key, colon, value = line.split("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if not colon:
            continue
        if key == "user-agent":
            if not opening:
                groups.append((set(), []))
            opening = True
            token = _PRODUCT.match(value)
            groups[-1][0].add("*" if value.startswith("*") else token.group().lower() if token else "")
        elif key in ("allow", "disallow", "crawl-delay"):
            opening = False
            if groups:
                groups[-1][1].append((key, value))
    return groups


def _rules(lines: Sequence[tuple[str, str]]) -> RobotsRules:
    rules, delay = [], None
    for key, value in lines:
        if key == "crawl-delay":
            delay = float(value) if re.fullmatch(r"\d{1,6}(\.\d*)?", value) else delay
        elif value:  # an empty disallow forbids nothing
            rules.append((key == "allow", PathPattern(normalised(value))))
    return RobotsRules(tuple(rules), delay)
