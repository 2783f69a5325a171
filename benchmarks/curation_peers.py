"""Fetching and hostile files beside the peers themselves: img2dataset and cleanvision, in an environment of their own.

The peers are no dependency. Put them where they do not meet ours, and name that Python:

    uv venv /tmp/peers && uv pip install --python /tmp/peers/bin/python img2dataset cleanvision
    python benchmarks/curation_peers.py --peers /tmp/peers/bin/python [--pictures 2000] [--repeats 3]

Without --peers, or where a peer cannot be imported, it says so and ends with code 2: nothing stands in for a peer.
Everything stays on the loopback. Sides take turns; medians count. img2dataset's own functions do the work: its download
of one picture, in as many threads as we have requests open, as its Downloader calls it; its Resizer, which decodes and
writes again, on every hostile file; cleanvision looks at a folder of the same files. Prints a table; the last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONCURRENCY = 32
ABSENT = 2  # the exit code where there is no peer


# ---- in the peers' Python: nothing of ours is imported ----


def peer_fetch(order: dict[str, Any]) -> dict[str, Any]:
    """img2dataset's download of every URL; seconds of wall and processor, and how many had the right length."""
    from multiprocessing.pool import ThreadPool

    from img2dataset.downloader import download_image_with_retry

    def one(row: tuple[int, str]) -> bool:
        _, stream, _ = download_image_with_retry(row, 10, order["retries"], None, ["noai", "noindex"])
        return stream is not None and len(stream.read()) == order["length"]

    with ThreadPool(CONCURRENCY) as threads:
        start, busy = time.perf_counter(), time.process_time()
        had = sum(threads.imap_unordered(one, enumerate(order["urls"])))
        return {"had": had, "wall": time.perf_counter() - start, "cpu": time.process_time() - busy}


def peer_vectors(order: dict[str, Any]) -> dict[str, Any]:
    """The addresses that img2dataset would connect to for each vector; none is reached. 'here': it read a file."""
    import socket
    from unittest import mock

    from img2dataset.downloader import download_image

    def places(url: str, name: str | None) -> list[str]:
        tried: list[str] = []

        def connect(target: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
            host = name or target[0]
            host = "127.0.0.1" if host == "localhost" else host
            found = socket.getaddrinfo(host, target[1], flags=socket.AI_NUMERICHOST)
            tried.extend(str(each[4][0]) for each in found)
            raise ConnectionRefusedError

        with mock.patch("socket.create_connection", connect):
            _, stream, _ = download_image((0, url), 2, None, None)
        return [*tried, "here"] if stream is not None else tried

    return {"places": [places(url, name) for _, url, name in order["vectors"]]}


def peer_hostile(order: dict[str, Any]) -> dict[str, Any]:
    """What img2dataset's Resizer makes of each file: kept, or an error; whether turned pictures stand upright."""
    import io

    import cv2
    import numpy as np
    from img2dataset.resizer import Resizer

    resizer = Resizer(256, "no", False)
    ends, corners = {}, {}
    for name in order["files"]:
        made, *_, error = resizer(io.BytesIO((Path(order["folder"]) / name).read_bytes()))
        ends[name] = "none" if made is None or error else "kept"
        if name in order["turned"] and made is not None:
            pixels = np.asarray(cv2.imdecode(np.frombuffer(made, np.uint8), cv2.IMREAD_COLOR))[..., ::-1]
            corners[name] = pixels.shape[:2], pixels.tobytes().hex()
    return {"ends": ends, "corners": corners}


def peer_issues(order: dict[str, Any]) -> dict[str, Any]:
    """How cleanvision's search for issues ends on the folder of all files, and on each file alone; seconds of both."""
    from cleanvision import Imagelab

    def ended(lab: Any) -> str:
        try:
            lab.find_issues(n_jobs=1)
        except Exception as error:
            return type(error).__name__
        return "told"

    start, folder = time.perf_counter(), Path(order["folder"])
    whole = ended(Imagelab(data_path=str(folder)))
    alone = {name: ended(Imagelab(filepaths=[str(folder / name)])) for name in order["files"]}
    return {"folder": whole, "alone": alone, "seconds": time.perf_counter() - start}


PEER_WORK: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "fetch": peer_fetch,
    "vectors": peer_vectors,
    "hostile": peer_hostile,
    "issues": peer_issues,
}


# ---- on our side ----


def ask(python: str, what: str, order: dict[str, Any], timeout: float = 600) -> dict[str, Any]:
    """The answer of a child in the peers' Python, or {'died': why}: hostile files may end it."""
    command = [python, __file__, "--as-peer", what]
    with tempfile.TemporaryDirectory() as folder:  # of its own: nothing lies there that an import could find
        try:
            done = subprocess.run(
                command, input=json.dumps(order), capture_output=True, text=True, timeout=timeout, cwd=folder
            )
        except subprocess.TimeoutExpired:
            return {"died": f"not done after {timeout:.0f} s"}
    if done.returncode:
        return {"died": f"code {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1][:300]}"}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def versions(python: str) -> dict[str, str]:
    """The peers' versions. Ends the program where one is missing."""
    code = (
        "import json, importlib.metadata as m\nimport img2dataset.downloader, cleanvision\n"
        "print(json.dumps({n: m.version(n) for n in ('img2dataset', 'cleanvision')}))"
    )
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=folder)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"skipped: {python} has not both peers ({why}); install img2dataset and cleanvision there")
        raise SystemExit(ABSENT)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def fetching_part(python: str, pictures: int, repeats: int) -> dict[str, Any]:
    """Pictures a second by wall and by processor; what a tenth of failing first requests costs; vectors reached."""
    import fetching

    rates: dict[str, list[float]] = {f"{side} {unit}": [] for side in ("ours", "peer") for unit in ("wall", "cpu")}
    order: dict[str, Any] = {"length": len(fetching.PICTURE), "retries": 0}
    with fetching.remote() as server:
        order["urls"] = [server.url(f"/ok/{i}") for i in range(pictures)]
        for _ in range(repeats):
            start, busy = time.perf_counter(), time.process_time()
            if fetching.ours(order["urls"]) != pictures:
                raise SystemExit("ours lost pictures of a server without faults")
            rates["ours wall"].append(pictures / (time.perf_counter() - start))
            rates["ours cpu"].append(pictures / (time.process_time() - busy))
            answer = ask(python, "fetch", order)
            if answer.get("had") != pictures:
                raise SystemExit(f"img2dataset lost pictures of a server without faults: {answer}")
            rates["peer wall"].append(pictures / answer["wall"])
            rates["peer cpu"].append(pictures / answer["cpu"])
        order["urls"] = [server.url(f"/unsteady/{i}") for i in range(pictures)]
        server.ask("reset")
        had = {"ours": fetching.ours(order["urls"]) / pictures}
        server.ask("reset")
        had["peer"] = ask(python, "fetch", order)["had"] / pictures
    return {"per_s": {name: round(statistics.median(v)) for name, v in rates.items()}, "had": had}


def vectors_part(python: str) -> dict[str, int]:
    """How many of the vectors lead each side to a place that is not public."""
    import fetching

    vectors = fetching.vectors()
    places = ask(python, "vectors", {"vectors": vectors})["places"]
    reached = [any(p == "here" or not fetching.is_public(p) for p in tried) for tried in places]
    ours = sum(fetching.reached_by_us(address, name) for _, address, name in vectors)
    return {"all": len(vectors), "ours": ours, "peer": sum(reached)}


def hostile_part(python: str) -> dict[str, Any]:
    """Hostile files on all three sides: ends that are right, pixels of broken files, whole files lost, upright."""
    import hostile_images as hostile
    import numpy as np

    files = hostile.hostile_files()
    easy = [file for file in files if file.family != "bombs"]  # 900 megapixels would be allocated
    turned = [f for f in easy if re.fullmatch(r"orientation-[1-8]\..*", f.name)]
    mine = hostile.measure(files)
    with tempfile.TemporaryDirectory() as folder:
        for file in easy:
            (Path(folder) / file.name).write_bytes(file.data)
        order = {"folder": folder, "files": [f.name for f in easy], "turned": [f.name for f in turned]}
        made, issues = ask(python, "hostile", order), ask(python, "issues", order)
    told: dict[str, Any] = {"files": len(files), "easy": len(easy), "wrong": len(mine["wrong"])}
    told["ours upright"] = mine["upright"]
    if "ends" in made:
        ends = made["ends"]
        shown = [
            np.frombuffer(bytes.fromhex(pixels), np.uint8).reshape(*shape, 3)
            for shape, pixels in made["corners"].values()
        ]
        told["img2dataset"] = {
            "pixels of broken": sum(ends[f.name] == "kept" and hostile.KEPT not in f.ends for f in easy),
            "whole lost": sum(ends[f.name] != "kept" and f.ends == {hostile.KEPT} for f in easy),
            "upright": [sum(hostile.close(hostile.corners(p)) for p in shown), len(turned)],
        }
    else:
        told["img2dataset"] = made
    if "alone" in issues:
        whole = [f.name for f in easy if f.ends == {hostile.KEPT}]
        told["cleanvision"] = {
            "folder of all": issues["folder"],
            "ends of each alone": dict(Counter(issues["alone"].values()).most_common()),
            "of whole files": dict(Counter(issues["alone"][name] for name in whole).most_common()),
        }
    else:
        told["cleanvision"] = issues
    return told


def main() -> None:
    """All parts, a table, JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="the Python that has img2dataset and cleanvision")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--as-peer", choices=sorted(PEER_WORK), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_peer:
        print("\n" + json.dumps(PEER_WORK[arguments.as_peer](json.load(sys.stdin))))
        return
    if not arguments.peers:
        print("skipped: name the Python that has img2dataset and cleanvision with --peers")
        raise SystemExit(ABSENT)
    found: dict[str, Any] = {"peers": versions(arguments.peers)}
    found |= fetching_part(arguments.peers, arguments.pictures, arguments.repeats)
    found["vectors"] = vectors_part(arguments.peers)
    found["hostile"] = hostile_part(arguments.peers)
    rates, vectors = found["per_s"], found["vectors"]
    print(f"peers: {found['peers']}")
    for unit in ("wall", "cpu"):
        print(f"pictures a second of {unit:4}   ours {rates[f'ours {unit}']}   img2dataset {rates[f'peer {unit}']}")
    print(f"had with a tenth failing    ours {found['had']['ours']:.4f}   img2dataset {found['had']['peer']:.4f}")
    print(f"vectors that lead inside    ours {vectors['ours']}   img2dataset {vectors['peer']}   of {vectors['all']}")
    for name, value in found["hostile"].items():
        print(f"hostile, {name:14}     {value}")
    print(json.dumps({"benchmark": "curation_peers", **found}))


if __name__ == "__main__":
    main()
