"""Fetching over HTTP beside a thread pool of urllib, which is how image downloaders fetch: safety, courtesy, speed.

    python benchmarks/fetching.py [--pictures 2000] [--repeats 3]

Everything stays on this machine: the server is a process on the loopback, and where a vector leads elsewhere a stand-in
notes the address and refuses to connect. The sides take turns; medians count. Prints a table; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/curation/images"))

from fault_server import PICTURE, Server
from ssrf_vectors import FORBIDDEN, NOT_FOR_US, SPELLINGS, Names, Recorder

from curation.images.addresses import is_public
from curation.images.fetch import fetch_all
from curation.images.fetch_policy import FetchPolicy

CONCURRENCY = 32


def _serve(pipe: Any) -> None:
    server = Server()
    pipe.send(server.port)
    while (order := pipe.recv()) != "stop":
        if order == "reset":
            server.reset()
        pipe.send((dict(server.hits), list(server.times)))


class Remote:
    """The fault server in a process of its own."""

    def __init__(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        self.port = self._pipe.recv()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ask(self, order: str = "tell") -> tuple[dict[str, int], list[tuple[str, float]]]:
        self._pipe.send(order)
        return self._pipe.recv()

    def stop(self) -> None:
        self._pipe.send("stop")
        self._process.join(10)


def policy(**changes: Any) -> FetchPolicy:
    values = {"allow_private_addresses": True, "host_interval_s": 0.0, "per_host": CONCURRENCY, "backoff_s": 0.05}
    return FetchPolicy(**{**values, "concurrency": CONCURRENCY, **changes})


def ours(urls: list[str]) -> int:
    return sum(answer == PICTURE for answer in fetch_all(urls, policy()))


def plain(urls: list[str]) -> int:
    """urlopen in threads, no second try: img2dataset's download with its defaults."""

    def one(url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return bool(answer.read() == PICTURE)
        except OSError:
            return False

    with ThreadPoolExecutor(CONCURRENCY) as threads:
        return sum(threads.map(one, urls))


def speed(server: Remote, pictures: int, repeats: int) -> dict[str, float]:
    """Pictures per second of wall time, and of this process's own processor time."""
    urls = [server.url(f"/ok/{i}") for i in range(pictures)]
    rates: dict[str, list[float]] = {"ours": [], "plain": [], "ours cpu": [], "plain cpu": []}
    for _ in range(repeats):
        for name, side in (("ours", ours), ("plain", plain)):
            start, busy = time.perf_counter(), time.process_time()
            if side(urls) != pictures:
                raise SystemExit(f"{name} lost pictures of a server without faults")
            rates[name].append(pictures / (time.perf_counter() - start))
            rates[f"{name} cpu"].append(pictures / (time.process_time() - busy))
    return {name: round(statistics.median(values)) for name, values in rates.items()}


def faults(server: Remote, pictures: int) -> dict[str, float]:
    """Share of pictures had where every tenth first request meets a reset or a 503."""
    shares = {}
    for name, side in (("ours", ours), ("plain", plain)):
        server.ask("reset")
        shares[name] = side([server.url(f"/unsteady/{i}") for i in range(pictures)]) / pictures
    return shares


def courtesy(server: Remote, interval_s: float = 0.02) -> dict[str, Any]:
    """Four workers of one run on one host: requests for its policy files, and the rate that it saw."""
    server.ask("reset")
    with tempfile.TemporaryDirectory() as folder:
        work = [([server.url(f"/ok/{w}/{i}") for i in range(50)], folder, interval_s) for w in range(4)]
        with multiprocessing.get_context("spawn").Pool(4) as pool:
            had = sum(pool.starmap(_worker, work))
    hits, times = server.ask()
    arrivals = sorted(at for path, at in times if path.startswith("/ok"))
    return {
        "had": had,
        "robots.txt": hits["/robots.txt"],
        "tdmrep.json": hits["/.well-known/tdmrep.json"],
        "limit_per_s": 1 / interval_s,
        "mean_per_s": round((len(arrivals) - 1) / (arrivals[-1] - arrivals[0]), 1),
        "most_in_a_second": max(sum(at <= other < at + 1 for other in arrivals) for at in arrivals),
    }


def _worker(urls: list[str], folder: str, interval_s: float) -> int:
    answers = fetch_all(urls, policy(state_folder=folder, host_interval_s=interval_s))
    return sum(answer == PICTURE for answer in answers)


def vectors() -> list[tuple[str, str, str | None]]:
    """(kind, address, what its name resolves to or None): literals, spellings, names, other schemes."""
    hosts = [(f"[{a.split('%')[0]}]" if ":" in a else a) for a in FORBIDDEN]
    found: list[tuple[str, str, str | None]] = [("literal", f"http://{host}/latest/", None) for host in hosts]
    found += [("spelling", f"http://{host}/", None) for host in SPELLINGS if host.isascii()]
    found += [("name", "http://pictures.example/a.jpg", address.split("%")[0]) for address in FORBIDDEN]
    return found + [
        ("scheme", url, None) for url in NOT_FOR_US if url.startswith(("file:", "ftp:", "gopher:", "data:"))
    ]


def reached_by_us(address: str, name: str | None) -> bool:
    recorder = Recorder()
    resolver = Names(name) if name else None
    fetch_all([address], FetchPolicy(retries=0, timeout_s=5), resolver=resolver, socket_factory=recorder)
    return any(not is_public(passed) for passed in recorder.passed)


def reached_plainly(address: str, name: str | None) -> bool:
    """Whether urlopen would connect to an address that is not public, or answers from this machine itself."""
    tried: list[str] = []

    def connect(target: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        host = name or target[0]
        if host == "localhost":
            host = "127.0.0.1"
        for *_, place in socket.getaddrinfo(host, target[1], flags=socket.AI_NUMERICHOST):
            tried.append(str(place[0]))
        raise ConnectionRefusedError

    with mock.patch("socket.create_connection", connect):
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                return bool(answer.read())
        except (OSError, ValueError, urllib.error.URLError):
            return any(not is_public(place) for place in tried)


def safety() -> dict[str, Any]:
    counts: Counter[str] = Counter()
    for kind, address, name in vectors():
        counts[f"{kind} all"] += 1
        counts[f"{kind} ours"] += reached_by_us(address, name)
        counts[f"{kind} plain"] += reached_plainly(address, name)
    return dict(counts)


@contextmanager
def remote() -> Iterator[Remote]:
    server = Remote()
    try:
        yield server
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    reached = safety()
    with remote() as server:
        rates = speed(server, arguments.pictures, arguments.repeats)
        shares = faults(server, arguments.pictures)
        polite = courtesy(server)
    total = {side: sum(n for key, n in reached.items() if key.endswith(side)) for side in ("all", "ours", "plain")}
    print(f"vectors that reach a place that is not public   ours {total['ours']} of {total['all']}", end="")
    print(f"   urllib {total['plain']} of {total['all']}")
    for kind in ("literal", "spelling", "name", "scheme"):
        print(f"  {kind:<46}" + "".join(f"{side} {reached[f'{kind} {side}']}   " for side in ("all", "ours", "plain")))
    print(f"pictures/s at {CONCURRENCY} at a time                     ours {rates['ours']}   urllib {rates['plain']}")
    print(f"  per second of processor time                  ours {rates['ours cpu']}   urllib {rates['plain cpu']}")
    print(f"had when a tenth of first requests fail         ours {shares['ours']:.4f}   urllib {shares['plain']:.4f}")
    print(f"four workers on one host: {polite}")
    print(json.dumps({"benchmark": "fetching", "reached": reached, "per_s": rates, "had": shares, "courtesy": polite}))


if __name__ == "__main__":
    main()
