"""robots.txt by the examples of RFC 9309 and of the search engines' documentation; X-Robots-Tag and tdmrep.json."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.images.opt_out import read_reservations, reserves, tagged
from curation.images.robots_rules import PathPattern, RobotsRules, parse

US = "sapiens2-curation"

# RFC 9309, section 5.1
SIMPLE = """
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""


def rules(text: str, agent: str = US) -> RobotsRules:
    return parse(text, agent)


@pytest.mark.parametrize(
    ("agent", "path", "allowed"),
    [
        ("anybot", "/a.gif", False),
        ("anybot", "/a.gif?x", True),
        ("anybot", "/example/x", False),
        ("anybot", "/publications/a", True),
        ("foobot", "/", False),
        ("foobot", "/example/page.html", True),
        ("FooBot", "/example/allowed.gif", True),
        ("foobot", "/example/other", False),
        ("barbot", "/example/page.html", False),
        ("bazbot", "/example/page.html", False),
        ("bazbot", "/example/allowed.gif", True),
        ("quxbot", "/example/page.html", True),
    ],
)
def test_the_simple_example_of_the_rfc(agent: str, path: str, allowed: bool) -> None:
    assert rules(SIMPLE, agent).allows(path) is allowed


def test_the_longest_match_decides_and_allow_wins_among_equals() -> None:
    text = "User-Agent: foobot\nAllow: /example/page/\nDisallow: /example/page/disallowed.gif\n"  # RFC 9309, 5.2
    assert not rules(text, "foobot").allows("/example/page/disallowed.gif")
    assert rules(text, "foobot").allows("/example/page/x.gif")
    assert rules("User-agent: *\nDisallow: /p\nAllow: /p\n").allows("/page")
    assert rules("User-agent: *\nDisallow: /\nAllow: /$\n").allows("/")
    assert not rules("User-agent: *\nDisallow: /\nAllow: /$\n").allows("/page.htm")


def test_groups_of_one_agent_are_joined_and_a_named_group_replaces_the_common_one() -> None:
    text = (
        f"User-agent: *\nDisallow: /\n\nUser-agent: {US}\nDisallow: /a\n\nUser-agent: {US.upper()}/2.0\nDisallow: /b\n"
    )
    ours = rules(text)
    assert ours.allows("/c") and not ours.allows("/a1") and not ours.allows("/b1")
    assert not rules(text, "other").allows("/c")


def test_oddities_of_real_files() -> None:
    assert rules("\ufeffUser-agent: *\r\nDisallow: /a # private\r\n").allows("/b")
    assert not rules("\ufeffUser-agent: *\r\nDisallow: /a # private\r\n").allows("/a/x")
    assert rules("Disallow: /\n").allows("/x")  # no group, so it speaks to nobody
    assert rules("User-agent: *\nDisallow:\n").allows("/x")
    assert rules("<html>not found</html>").allows("/x") and rules("").allows("/x")
    assert rules("User-agent: *\nCrawl-delay: 2.5\nDisallow: /a").crawl_delay_s == 2.5
    assert rules("User-agent: *\nCrawl-delay: soon\n").crawl_delay_s is None
    sitemap = "User-agent: a\nSitemap: https://a.example/s.xml\nUser-agent: *\nDisallow: /x\n"
    assert not rules(sitemap).allows("/x") and not rules(sitemap, "a").allows("/x")


def test_percent_encoding_is_compared_in_one_spelling() -> None:
    for line in ("/caf%C3%A9", "/café", "/caf%c3%a9"):
        assert not rules(f"User-agent: *\nDisallow: {line}\n").allows("/caf%C3%A9/1.jpg")
    assert rules("User-agent: *\nDisallow: /a%2Fb\n").allows("/a/b")
    assert not rules("User-agent: *\nDisallow: /%7Ejoe/\n").allows("/~joe/a")


@given(st.text("ab/*$", max_size=8), st.text("ab/$", max_size=10))
def test_patterns_match_as_the_regular_expression_does(pattern: str, path: str) -> None:
    body = pattern[:-1] if pattern.endswith("$") else pattern
    expression = ".*".join(re.escape(piece) for piece in body.split("*")) + (r"\Z" if pattern.endswith("$") else "")
    assert PathPattern(pattern).matches(path) is bool(re.match(expression, path))


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (["noai"], "noai"),
        (["noarchive, NoImageAI"], "noimageai"),
        (["all"], None),
        (["nofollow", "noindex"], "noindex"),
        (["otherbot: noai, noindex"], None),
        ([f"{US}: noml"], "noml"),
        (["otherbot: noindex", "noai"], "noai"),
        (["otherbot: nofollow, " + US + ": none"], "none"),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST"], None),
        (["max-snippet: 20, noimageindex"], "noimageindex"),
        ([""], None),
        ([], None),
    ],
)
def test_directives_in_headers(headers: list[str], found: str | None) -> None:
    assert tagged(headers, US) == found


def test_reservations() -> None:
    assert reserves("1") and reserves(" 1 ") and not reserves("0") and not reserves(None) and not reserves("yes")
    held = read_reservations(
        b'[{"location": "/directory-a/", "tdm-reservation": 1, "tdm-policy": "https://provider.example/p.json"},'
        b' {"location": "/directory-a/free/*.jpg", "tdm-reservation": 0}, {"location": "/b", "tdm-reservation": "1"}]'
    )
    assert held.covers("/directory-a/html/x") and not held.covers("/directory-a/free/a.jpg")
    assert held.covers("/b/c") and not held.covers("/c")
    for body in (b"", b"{", b"{}", b"[1, {}]", b'[{"location": 3, "tdm-reservation": 1}]', b"[" * 100_000, b"\xff\xfe"):
        assert not read_reservations(body).covers("/")
