"""Fetching against a real server on the loopback, and forbidden addresses against sockets that only record."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver
from fault_server import PICTURE, Server
from ssrf_vectors import FORBIDDEN, NOT_FOR_US, SPELLINGS, Names, Recorder

from curation.images.addresses import is_public
from curation.images.fetch import fetch_all, fetch_into, public_socket
from curation.images.fetch_policy import FetchPolicy
from curation.images.fetched import Fetched
from curation.images.host_state import FAILURES_IN_A_ROW
from curation.images.reasons import Reason, Reject


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def server(running: Server) -> Server:
    running.reset()
    return running


def policy(**changes: Any) -> FetchPolicy:
    values = {"allow_private_addresses": True, "backoff_s": 0.01, "timeout_s": 5.0, "max_bytes": 200_000}
    return FetchPolicy(**{**values, "host_interval_s": 0.0, **changes})


def one(url: str, **changes: Any) -> bytes | Reject:
    return fetch_all([url], policy(**changes))[0]


def reason(url: str, **changes: Any) -> Reason:
    answer = one(url, **changes)
    assert isinstance(answer, Reject), answer
    return answer.reason


@contextmanager
def peak_mb() -> Iterator[list[float]]:
    """The peak of this process's memory over its start, in MB, when the block is left."""

    def kib(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1])

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, found = kib("VmRSS"), []
    yield found
    found.append((kib("VmHWM") - before) / 1024)


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
    assert reason(server.url("/status/500")) == Reason.SERVER_ERROR and server.hits["/status/500"] == 3
    assert reason(server.url("/short"), retries=1) == Reason.INCOMPLETE and server.hits["/short"] == 2


def test_time_bytes_and_redirects_are_capped(server: Server) -> None:
    assert reason(server.url("/drip"), timeout_s=0.4, retries=0) == Reason.TIMEOUT
    assert reason(server.url("/endless"), retries=0) == Reason.TOO_LARGE
    assert reason(server.url("/declared")) == Reason.TOO_LARGE
    assert reason(server.url("/hop/0"), max_redirects=3) == Reason.TOO_MANY_REDIRECTS
    assert server.hits["/hop/3"] == 1 and server.hits["/hop/4"] == 0
    assert one(server.url("/hop/0?to=/ok")) == PICTURE


def test_transport_coding_is_undone_within_the_limit(server: Server) -> None:
    assert one(server.url("/gzip")) == PICTURE and one(server.url("/deflate")) == PICTURE
    with peak_mb() as peak:
        assert reason(server.url("/bomb"), max_bytes=1 << 20) == Reason.TOO_LARGE
    assert peak[0] < 20  # of the 96 that the bomb holds
    assert reason(server.url("/lies/gzip")) == Reason.CORRUPT
    assert reason(server.url("/lies/br")) == Reason.UNSUPPORTED


def test_many_large_bodies_wait_on_disk(server: Server) -> None:
    urls = [server.url(f"/large/{i}") for i in range(40)]  # 3 MB each
    with Fetched(in_memory_bytes=5 << 20) as fetched:
        with peak_mb() as peak:
            fetch_into(fetched, [*urls, server.url("/status/404")], policy(max_bytes=4 << 20, concurrency=2))
        bodies = [fetched[url] for url in (urls[0], urls[39], urls[0])]
        gone = fetched[server.url("/status/404")]
    assert bodies[0] == bodies[1] == bodies[2] == bytes(3 << 20)
    assert isinstance(gone, Reject) and gone.reason == Reason.HTTP_404
    assert peak[0] < 60  # of 120


def test_wrong_lengths(server: Server) -> None:
    n = len(PICTURE)
    assert reason(server.url(f"/length/more?of={n + 7}"), retries=0) == Reason.INCOMPLETE
    assert reason(server.url(f"/length/less?of={n - 7}"), retries=0) == Reason.BAD_ANSWER
    assert reason(server.url("/length/huge?of=99999999999"), retries=0) == Reason.TOO_LARGE
    for text in ("-5", "1e3", "ten"):
        assert reason(server.url(f"/length/{text}?of={text}")) == Reason.BAD_ANSWER
        assert server.hits[f"/length/{text}"] == 1


def test_a_silent_or_absent_host(server: Server) -> None:
    assert reason(server.url("/silent"), timeout_s=0.3, retries=0) == Reason.TIMEOUT
    with socket.socket() as bound:  # bound and not listening: nobody else can take the port, and it refuses
        bound.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        assert reason(dead, retries=0) == Reason.CONNECTION_FAILED
        answers = fetch_all([f"{dead}{i}" for i in range(40)], policy(retries=0, respect_robots=False, concurrency=1))
    reasons = [answer.reason for answer in answers if isinstance(answer, Reject)]
    assert reasons.count(Reason.CONNECTION_FAILED) >= FAILURES_IN_A_ROW
    assert set(reasons) == {Reason.CONNECTION_FAILED} or reasons.count(Reason.RETRY_LATER) <= 40 - FAILURES_IN_A_ROW


def test_injected_resets_and_refusals_cost_no_picture(server: Server) -> None:
    answers = fetch_all([server.url(f"/unsteady/{i}") for i in range(200)], policy())
    assert answers == [PICTURE] * 200
    assert sum(server.hits.values()) == 200 + 20 + 2  # a tenth twice, and the two policy files


def test_opt_outs_are_honoured(server: Server) -> None:
    assert reason(server.url("/noai")) == Reason.OPT_OUT
    server.robots = "User-agent: sapiens2-curation\nDisallow: /ok/private\n\nUser-agent: *\nAllow: /\n"
    answers = fetch_all([server.url("/ok/private/1"), server.url("/ok/open")], policy())
    assert isinstance(answers[0], Reject) and answers[0].reason == Reason.ROBOTS and answers[1] == PICTURE
    assert server.hits["/ok/private/1"] == 0
    assert reason(server.url("/hop/0?to=/ok/private/2")) == Reason.ROBOTS and server.hits["/ok/private/2"] == 0
    assert one(server.url("/ok/private/1"), respect_robots=False) == PICTURE
    server.robots = 503
    assert reason(server.url("/ok/open"), retries=0) == Reason.RETRY_LATER and server.hits["/ok/open"] == 1
    server.robots = 403
    assert one(server.url("/ok/open")) == PICTURE


def test_reservations_of_mining_are_honoured(server: Server) -> None:
    assert reason(server.url("/tdm/1")) == Reason.OPT_OUT
    assert one(server.url("/tdm/0")) == PICTURE and one(server.url("/tdm/1"), respect_tdm=False) == PICTURE
    server.tdmrep = '[{"location": "/ok/gallery/*.jpg", "tdm-reservation": 1}, {"location": "/", "tdm-reservation": 0}]'
    server.hits.clear()
    urls = [server.url(f"/ok/{name}") for name in ("gallery/a.jpg", "gallery/a.png", "b.jpg")]
    refused, *taken = fetch_all(urls, policy())
    assert isinstance(refused, Reject) and refused.reason == Reason.OPT_OUT and taken == [PICTURE] * 2
    assert server.hits["/ok/gallery/a.jpg"] == 0 and server.hits["/.well-known/tdmrep.json"] == 1


def test_policy_files_are_asked_once_for_all_workers_and_runs(server: Server, tmp_path: Path) -> None:
    shared = {"state_folder": str(tmp_path)}
    for _ in range(3):
        assert one(server.url("/ok"), **shared) == PICTURE
    assert (server.hits["/robots.txt"], server.hits["/.well-known/tdmrep.json"]) == (1, 1)
    assert one(server.url("/ok"), **shared, robots_ttl_s=0.0) == PICTURE  # what is kept is still fresh
    fetch_all([server.url("/ok")], policy(state_folder=str(tmp_path / "other"), robots_ttl_s=0.0))
    fetch_all([server.url("/ok")], policy(state_folder=str(tmp_path / "other"), robots_ttl_s=0.0))
    assert server.hits["/robots.txt"] == 3


def test_requests_to_a_host_keep_their_distance(server: Server) -> None:
    server.robots = "User-agent: *\nCrawl-delay: 0.2\n"
    for changes, least_s in (({"host_interval_s": 0.0}, 0.6), ({"host_interval_s": 0.3}, 0.9)):
        server.times.clear()
        fetch_all([server.url(f"/ok/{i}") for i in range(4)], policy(**changes))
        times = [at for path, at in server.times if path.startswith("/ok")]
        assert len(times) == 4 and times[-1] - times[0] >= least_s - 0.15  # a busy machine delays the first


def test_a_host_that_asks_for_a_pause_gets_it_from_all(server: Server) -> None:
    assert one(server.url("/busy/1?after=1")) == PICTURE
    first, second = [at for path, at in server.times if path == "/busy/1"]
    assert second - first >= 0.95
    answers = fetch_all(
        [server.url("/busy/2?after=3600"), server.url("/ok/after")], policy(concurrency=1, respect_robots=False)
    )
    assert isinstance(answers[0], Reject) and answers[0].reason == Reason.RETRY_LATER
    assert server.hits["/busy/2"] == 1  # no second knock within the pause


@pytest.mark.parametrize("url", NOT_FOR_US)
def test_only_plain_web_addresses(url: str) -> None:
    assert reason(url) == Reason.BAD_URL


def test_redirects_cannot_leave_the_web(server: Server) -> None:
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        assert reason(server.url(f"/hop/0?to={target}")) == Reason.BAD_URL


def test_addresses() -> None:
    assert [address for address in FORBIDDEN if is_public(address)] == []
    assert not is_public("localhost") and not is_public("")
    assert all(map(is_public, ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8"]))


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
