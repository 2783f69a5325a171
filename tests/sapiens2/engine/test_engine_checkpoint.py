"""A saved state counts only when it is complete and its bytes are those that were written."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sapiens2.engine import checkpoint
from sapiens2.engine.training_state import digest
from sapiens2.engine.world import World

ALONE = World(0, 1, torch.device("cpu"))


def tensors(value: float) -> dict[str, Tensor]:
    return {"model.w": torch.full((2, 3), value), "optimizer.w.step": torch.tensor(value)}


def save(root: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(tensors(float(step)), {"n": step}, root=str(root), step=step, world=ALONE)


def load(root: Path) -> tuple[int, dict[str, Tensor]]:
    saved = checkpoint.newest(str(root))
    assert saved is not None
    into = tensors(-1.0)
    checkpoint.load(saved, lambda names: into, world=ALONE)
    return saved.step, into


def data_file(root: Path, step: int) -> Path:
    return next((root / f"step_{step}").glob("*.distcp"))


def test_newest_state_comes_back(tmp_path: Path) -> None:
    assert checkpoint.newest(str(tmp_path / "none")) is None
    save(tmp_path, 5, 10, 9)
    step, held = load(tmp_path)
    assert step == 10
    assert torch.equal(held["model.w"], torch.full((2, 3), 10.0)) and held["optimizer.w.step"] == 10
    found = checkpoint.newest(str(tmp_path))
    assert found is not None and found.note == {"n": 10}


@pytest.mark.parametrize("harm", ["no marker", "one bit", "shortened", "missing file"])
def test_damaged_state_is_passed_over(tmp_path: Path, harm: str) -> None:
    save(tmp_path, 5, 10)
    path = data_file(tmp_path, 10)
    data = bytearray(path.read_bytes())
    if harm == "no marker":
        (tmp_path / "step_10" / checkpoint.MARKER).unlink()
    elif harm == "one bit":
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    elif harm == "shortened":
        path.write_bytes(bytes(data[:-1]))
    else:
        path.unlink()
    assert load(tmp_path)[0] == 5


def test_retention_never_deletes_the_newest_verified_state(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4)
    (tmp_path / "step_2" / checkpoint.MARKER).unlink()  # torn and old
    data_file(tmp_path, 4).write_bytes(b"damaged")
    checkpoint.retain(str(tmp_path), 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_3", "step_4"]
    assert load(tmp_path)[0] == 3
    data_file(tmp_path, 3).write_bytes(b"damaged too")
    checkpoint.retain(str(tmp_path), 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_3", "step_4"]


def test_state_of_another_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 5)
    saved = checkpoint.newest(str(tmp_path))
    assert saved is not None
    wrong_shape = tensors(0.0) | {"model.w": torch.zeros(3, 3)}
    with pytest.raises(ValueError, match=r"model\.w is \(2, 3\) there, \(3, 3\) here; continue with"):
        checkpoint.load(saved, lambda names: wrong_shape, world=ALONE)
    more = tensors(0.0) | {"model.v": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"model\.v is not in the saved state"):
        checkpoint.load(saved, lambda names: more, world=ALONE)


def test_digest_is_what_the_contract_says() -> None:
    state = {"b": torch.tensor([1, -2], dtype=torch.int16), "a": torch.tensor([[0.5, 2.0]])}
    by_hand = hashlib.sha256()
    by_hand.update(b"a\0float32\0(1, 2)\0" + struct.pack("<2f", 0.5, 2.0))
    by_hand.update(b"b\0int16\0(2,)\0" + struct.pack("<2h", 1, -2))
    assert digest(state) == by_hand.hexdigest()
    assert digest(dict(reversed(state.items()))) == by_hand.hexdigest()
    assert digest(state | {"b": torch.tensor([1, -1], dtype=torch.int16)}) != by_hand.hexdigest()
    assert len({digest({"x": torch.ones(2, 1)}), digest({"x": torch.ones(1, 2)})}) == 2
    assert digest({"x": torch.tensor(1.5, dtype=torch.bfloat16)})
