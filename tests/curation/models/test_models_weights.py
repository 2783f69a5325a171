"""Where weights are found, in which order, what is refused; ONNX sessions on networks of a few bytes."""

from __future__ import annotations

import functools
import hashlib
import http.server
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from tiny_onnx import write_scale

from curation.models.onnx_session import OnnxSession
from curation.models.weights import MODELS, ModelSpec, file_sha256, find, known, model_key

GOOD, BAD = b"the right weights", b"other weights"
PIN = hashlib.sha256(GOOD).hexdigest()


def spec(address: str | None = None, sha256: str | None = PIN) -> ModelSpec:
    return ModelSpec("net", "net.bin", sha256, "MIT", address, "1")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An empty models folder and an empty cache, both named by the environment."""
    models, cache = tmp_path / "models", tmp_path / "cache"
    models.mkdir()
    monkeypatch.setenv("SAPIENS2_MODELS", str(models))
    monkeypatch.setenv("SAPIENS2_CACHE", str(cache))
    return models, cache / "models"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Address of a folder served on loopback, and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("SAPIENS2_OFFLINE", raising=False)
    yield f"http://127.0.0.1:{httpd.server_port}", folder
    httpd.shutdown()
    httpd.server_close()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_models_folder_goes_before_the_cache_and_is_searched_at_any_depth(places):
    models, cache = places
    cached = put(cache / "net.bin", GOOD)
    assert find(spec()) == cached
    deep = put(models / "person" / "small" / "net.bin", GOOD)
    assert find(spec()) == deep


def test_a_namesake_with_another_digest_is_passed_over_but_never_used(places):
    models, _ = places
    put(models / "net.bin", BAD)
    with pytest.raises(ValueError, match=r"net weights: its sha256 is .* expected " + PIN):
        find(spec())
    right = put(models / "deeper" / "net.bin", GOOD)
    assert find(spec()) == right


def test_missing_file_says_its_name_and_where_to_put_it(places):
    models, cache = places
    with pytest.raises(FileNotFoundError) as caught:
        find(spec("https://example.org/net.bin"))
    text = str(caught.value)
    assert "net.bin" in text and str(models) in text and str(cache) in text
    assert "SAPIENS2_OFFLINE" in text and "https://example.org/net.bin" in text


def test_unpinned_file_is_taken_from_disk_but_not_fetched(places, server):
    address, folder = server
    put(folder / "net.bin", GOOD)
    with pytest.raises(FileNotFoundError, match="sha256 is not pinned"):
        find(spec(f"{address}/net.bin", sha256=None))
    mine = put(places[0] / "net.bin", BAD)
    assert find(spec(f"{address}/net.bin", sha256=None)) == mine


def test_download_is_checked_and_lands_in_the_cache(places, server):
    address, folder = server
    put(folder / "net.bin", GOOD)
    with pytest.raises(FileNotFoundError):
        find(spec(f"{address}/net.bin"), download=False)
    path = find(spec(f"{address}/net.bin"))
    assert path == places[1] / "net.bin" and path.read_bytes() == GOOD
    (folder / "net.bin").unlink()
    assert find(spec(f"{address}/net.bin")) == path


def test_download_of_something_else_leaves_nothing_behind(places, server):
    address, folder = server
    put(folder / "net.bin", BAD)
    with pytest.raises(ValueError, match="served sha256"):
        find(spec(f"{address}/net.bin"))
    with pytest.raises(FileNotFoundError, match="download failed"):
        find(spec(f"{address}/absent.bin"))
    assert list(places[1].iterdir()) == []


def test_a_named_path_wins_and_is_not_held_to_the_pin(places):
    put(places[0] / "net.bin", GOOD)
    mine = put(places[0].parent / "mine.bin", BAD)
    assert find(spec().at(str(mine))) == mine
    with pytest.raises(FileNotFoundError, match=r"elsewhere\.bin"):
        find(spec().at(str(mine.with_name("elsewhere.bin"))))


def test_digest_follows_the_file(tmp_path: Path):
    path = put(tmp_path / "w.bin", GOOD)
    assert file_sha256(path) == PIN
    assert model_key(path, "rev") == f"{PIN[:16]}/rev"
    put(path, BAD + b" longer")
    assert file_sha256(path) == hashlib.sha256(BAD + b" longer").hexdigest()


def test_catalogue_is_well_formed():
    for name, entry in MODELS.items():
        assert entry.name == name and entry.licence and entry.revision
        assert entry.sha256 is None or len(bytes.fromhex(entry.sha256)) == 32
        assert entry.address is None or entry.address.startswith("https://")
    assert len({entry.filename for entry in MODELS.values()}) == len(MODELS)
    with pytest.raises(ValueError, match="yolox_nano"):
        known("yolox_nona")


def test_session_runs_and_travels(tmp_path: Path):
    session = OnnxSession(write_scale(tmp_path / "scale.onnx", 3.0))
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(session.run(x)[0], 3 * x)
    assert session.input_names == ["x"] and session.output_names == ["y"]
    copy = pickle.loads(pickle.dumps(session))
    np.testing.assert_array_equal(copy.run(x)[0], 3 * x)


@pytest.mark.parametrize("rows", [1, 4, 5, 9])
def test_fixed_batches_give_every_row_once(tmp_path: Path, rows: int):
    session = OnnxSession(write_scale(tmp_path / "scale.onnx", 2.0))
    x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    np.testing.assert_array_equal(session.run_fixed(x, 4)[0], 2 * x)


def test_a_file_that_is_no_network_is_named(tmp_path: Path):
    path = put(tmp_path / "broken.onnx", b"not a network")
    with pytest.raises(ValueError, match=r"broken\.onnx is not an ONNX network"):
        OnnxSession(path).run(np.zeros((1, 3), np.float32))
