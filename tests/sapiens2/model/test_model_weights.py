"""Weights files: strict, self-describing, and readable whoever wrote them."""

from __future__ import annotations

from pathlib import Path

import naive_encoder
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import sapiens2
from sapiens2.model.backbone import Backbone
from sapiens2.model.sizes import Architecture
from sapiens2.model.transformers_names import to_transformers
from sapiens2.model.weights import load_weights, read_metadata, save_weights, write_state

ARCHITECTURE = Architecture(dim=32, layers=17, heads=2, tokenizer_layers=1)


def filled(seed: int = 0, **settings: object) -> Backbone:
    model = Backbone(ARCHITECTURE, **settings)  # type: ignore[arg-type]
    naive_encoder.randomise(model, seed)
    return model


def same(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("rope_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("window_tokenizer", [False, True])
def test_a_saved_backbone_comes_back_whole(tmp_path: Path, rope_dtype: str, window_tokenizer: bool) -> None:
    model = filled(window_tokenizer=window_tokenizer, rope_dtype=rope_dtype)
    save_weights(model, tmp_path / "deep" / "model.safetensors")
    other = Backbone(ARCHITECTURE, window_tokenizer=window_tokenizer)
    load_weights(other, tmp_path / "deep" / "model.safetensors")
    assert same(model, other)
    assert other.rope.dtype == rope_dtype


def test_a_released_file_asks_for_bfloat16_rotation(tmp_path: Path) -> None:
    """A file as the release has it: names of specification 1.5, the periods as a bfloat16 buffer."""
    model = filled()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert {"cls_token", "storage_tokens", "patch_embed.projection.weight", "ln1.weight"} <= state.keys()
    assert {"blocks.8.attn.wk.weight", "blocks.0.attn.gamma.weight", "blocks.0.ffn.w12.bias"} <= state.keys()
    assert state["blocks.8.attn.wk.weight"].shape == (16, 32)
    state["rope_embed.periods"] = (100.0 ** (torch.arange(4) / 4)).bfloat16()
    save_file(state, tmp_path / "released.safetensors")
    other = Backbone(ARCHITECTURE)
    load_weights(other, tmp_path / "released.safetensors")
    assert same(model, other)
    assert other.rope.dtype == "bfloat16"


def test_a_file_with_the_ports_names_loads(tmp_path: Path) -> None:
    model = filled()
    save_file(
        {n: t.contiguous() for n, t in to_transformers(model.state_dict()).items()}, tmp_path / "port.safetensors"
    )
    other = Backbone(ARCHITECTURE)
    load_weights(other, tmp_path / "port.safetensors")
    assert same(model, other)
    assert other.rope.dtype == "float32"


class Task(nn.Module):
    """A task model: a backbone and something else."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(ARCHITECTURE)
        self.decode_head = nn.Linear(32, 2)


def test_a_task_checkpoint_serves_the_task_and_its_backbone(tmp_path: Path) -> None:
    task = Task()
    naive_encoder.randomise(task)
    save_weights(task, tmp_path / "task.safetensors")
    assert "backbone.rope_embed.periods" in load_file(tmp_path / "task.safetensors")
    whole, part = Task(), Backbone(ARCHITECTURE)
    load_weights(whole, tmp_path / "task.safetensors")
    load_weights(part, tmp_path / "task.safetensors")
    assert same(whole, task)
    assert same(part, task.backbone)


def test_weights_load_into_a_model_on_the_meta_device(tmp_path: Path) -> None:
    model = filled()
    save_file({n: t.bfloat16() for n, t in model.state_dict().items()}, tmp_path / "half.safetensors")
    with torch.device("meta"):
        other = Backbone(ARCHITECTURE)
    load_weights(other, tmp_path / "half.safetensors")
    assert all(p.dtype == torch.float32 and not p.is_meta for p in other.parameters())
    torch.testing.assert_close(other.ln1.weight, model.ln1.weight, rtol=1e-2, atol=0)
    assert other(torch.zeros(1, 3, 16, 16)).cls.shape == (1, 32)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = filled().state_dict()
    path = tmp_path / "bad.safetensors"
    save_file({n: t for n, t in state.items() if n not in ("cls_token", "ln1.weight")} | {"extra": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"bad.safetensors.*cls_token, ln1.weight missing.*extra unexpected"):
        load_weights(Backbone(ARCHITECTURE), path)
    save_file(state, path)
    with pytest.raises(ValueError, match=r"width 32, without.*tokenizer\.blocks\.0.* and \d+ more missing"):
        load_weights(Backbone(ARCHITECTURE, window_tokenizer=True), path)
    save_weights(sapiens2.build_backbone("tiny"), path)
    with pytest.raises(ValueError, match=r"size tiny, .*attn\.gamma\.weight \(192,\) instead of \(32,\)"):
        load_weights(Backbone(ARCHITECTURE), path)
    save_file(state | {"rope_embed.periods": torch.full((4,), 3.0)}, path)
    with pytest.raises(ValueError, match="periods"):
        load_weights(Backbone(ARCHITECTURE), path)
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_weights(Backbone(ARCHITECTURE), tmp_path / "absent.safetensors")


def test_a_failed_load_changes_nothing(tmp_path: Path) -> None:
    state = filled(seed=1).state_dict()
    state.pop("ln1.weight")
    save_file(state, tmp_path / "bad.safetensors")
    model, before = filled(), filled()
    with pytest.raises(ValueError, match=r"ln1\.weight missing"):
        load_weights(model, tmp_path / "bad.safetensors")
    assert same(model, before)


def test_weights_load_from_s3(s3_root: str, tmp_path: Path) -> None:
    from pyarrow import fs

    model = filled()
    save_weights(model, tmp_path / "model.safetensors")
    store, key = fs.FileSystem.from_uri(f"{s3_root}/model.safetensors")
    with store.open_output_stream(key) as stream:
        stream.write((tmp_path / "model.safetensors").read_bytes())
    other = Backbone(ARCHITECTURE)
    load_weights(other, f"{s3_root}/model.safetensors")
    assert same(model, other)


def test_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    """With what the header says beside them, of any characters; safetensors' own order changes from call to call."""
    tensors = {"a": torch.arange(3.0), "rope_embed.periods": torch.ones(2, dtype=torch.bfloat16)}
    licence = 'as "given" \\ by\n\x01 Müller, 犬'
    files = [tmp_path / f"{number}.safetensors" for number in range(12)]
    for file in files:
        write_state(tensors, file, licence=licence)
    assert len({file.read_bytes() for file in files}) == 1
    assert read_metadata(files[0]) == {"format": "pt", "licence": licence, "rope_dtype": "bfloat16"}
    loaded = load_file(files[0])
    assert loaded.keys() == tensors.keys() and all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_public_names_are_found_lazily() -> None:
    assert sapiens2.load_weights is load_weights
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sapiens2.nothing  # noqa: B018
