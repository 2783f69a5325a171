"""Weights in and out: every layout is recognised, renamed both ways without loss, and refused when it does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import sapiens2
from sapiens2.exchange import SAPIENS_LICENCE, UNSTATED, licence_of, read_checked, recognise, renamed
from sapiens2.model.transformers_names import to_transformers
from sapiens2.model.weights import named_weights, save_weights, write_state
from sapiens2.tasks.build import build_task
from sapiens2.tasks.load import load_task
from sapiens2.tasks.told import Told, told, told_by

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the release has it, bfloat16 periods included, with weights in 16 bits to see that they stay so."""
    torch.manual_seed(0)
    state = named_weights(sapiens2.build_backbone("tiny", rope_dtype="bfloat16"))
    path = tmp_path_factory.mktemp("weights") / "released.safetensors"
    save_file({n: t.contiguous() if n.endswith("periods") else t.half().contiguous() for n, t in state.items()}, path)
    return path


def equal(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def test_a_released_file_goes_through_and_comes_back(released: Path) -> None:
    found = recognise(released)
    assert (found.size, found.window_tokenizer, found.naming, found.has_head) == ("tiny", False, "released", False)
    assert found.rope_dtype == "bfloat16"
    assert equal(renamed(read_checked(released, found), "released"), load_file(released))


def test_the_ports_names_and_back(released: Path, tmp_path: Path) -> None:
    state = read_checked(released, recognise(released))
    port = renamed(state, "transformers")
    assert "embeddings.cls_token" in port and "model.layer.0.mlp.gate_proj.weight" in port
    save_file(port, tmp_path / "port.safetensors")
    found = recognise(tmp_path / "port.safetensors")
    assert (found.size, found.naming, found.rope_dtype) == ("tiny", "transformers", None)
    back = read_checked(tmp_path / "port.safetensors", found)
    assert equal(back, {name: tensor for name, tensor in state.items() if name != "rope_embed.periods"})
    inside = {f"backbone.{name}": tensor for name, tensor in port.items()} | {"head.conv.weight": torch.ones(1)}
    save_file(inside, tmp_path / "task.safetensors")  # one of the port's task models
    assert equal(read_checked(tmp_path / "task.safetensors", recognise(tmp_path / "task.safetensors")), back)


def test_the_port_itself_takes_what_is_exported(released: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers from the dev dependencies")
    config = transformers.Sapiens2Config(
        hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768, num_key_value_heads=3
    )
    with torch.device("meta"):
        port = transformers.Sapiens2Model(config)
    names = set(port.state_dict())
    assert set(renamed(read_checked(released, recognise(released)), "transformers")) == names


def test_a_task_checkpoint_gives_its_backbone_or_the_whole(tmp_path: Path) -> None:
    model = sapiens2.build_task("normal", "tiny")
    path = tmp_path / "task.safetensors"
    save_weights(model, path)
    found = recognise(path)
    assert found.has_head and found.size == "tiny"
    assert equal(read_checked(path, found), named_weights(model.backbone))
    whole = read_checked(path, found, "normal")
    assert equal(whole, named_weights(model))
    with pytest.raises(ValueError, match="heads have no transformers names"):
        renamed(whole, "transformers")
    with pytest.raises(ValueError, match=r"task\.safetensors does not fit.*decode_head.*of another shape"):
        read_checked(path, found, "segmentation")


def test_a_header_says_what_tensors_do_not(tmp_path: Path) -> None:
    path = tmp_path / "points.safetensors"
    made = Told(task="pointmap", image_size=(64, 48), scale="paper")
    state = named_weights(build_task("pointmap", "tiny", scale="paper"))
    write_state(state, path, about=made.model_dump_json())
    model = load_task(str(path), device="cpu")
    assert (model.task, model.scale, model.image_size) == ("pointmap", "paper", (64, 48))
    assert recognise(path).told == made and told_by({"config": made.model_dump()}) == made
    write_state(state, path)
    assert load_task(str(path), task="pointmap", device="cpu").scale == "release" and told(path) == Told()
    write_state(named_weights(build_task("pose", "0.1b", head="paper")), path, about='{"head": "paper"}')
    assert read_checked(path, recognise(path), "pose").keys() == load_file(path).keys()
    for wrong in ('{"image_size": "large"}', "{"):
        write_state(state, path, about=wrong)
        with pytest.raises(ValueError, match=r"the header of .*points.safetensors says what no model is"):
            recognise(path)


def test_what_does_not_fit_is_named(released: Path, tmp_path: Path) -> None:
    state = load_file(released)
    path = tmp_path / "bad.safetensors"
    save_file({n: t for n, t in state.items() if n != "blocks.5.ffn.w3.bias"} | {"extra": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"blocks\.5\.ffn\.w3\.bias missing from the file; extra unexpected"):
        read_checked(path, recognise(path))
    save_file({n: t for n, t in state.items() if not n.startswith("blocks.5.")}, path)
    with pytest.raises(ValueError, match=r"size tiny.*blocks\.5\..* missing"):
        read_checked(path, recognise(path))
    with pytest.raises(ValueError, match=r"size tiny.*of another shape"):
        read_checked(released, recognise(released, "0.1b"))
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="holds no Sapiens2 backbone"):
        recognise(path)
    save_file({"cls_token": torch.ones(1, 1, 100)}, path)
    with pytest.raises(ValueError, match="100 wide and 0 deep"):
        recognise(path)
    with pytest.raises(ValueError, match="is a backbone without a head"):
        read_checked(released, recognise(released), "pose")
    (tmp_path / "text.safetensors").write_text("no weights at all")
    with pytest.raises(ValueError, match="does not hold safetensors"):
        recognise(tmp_path / "text.safetensors")


def test_the_licence_is_stated_assumed_or_open(released: Path, tmp_path: Path) -> None:
    assert licence_of(released) == SAPIENS_LICENCE
    state = {n: t for n, t in load_file(released).items() if n != "rope_embed.periods"}
    save_file(state, tmp_path / "own.safetensors")
    assert licence_of(tmp_path / "own.safetensors") == UNSTATED
    save_file(state, tmp_path / "told.safetensors", metadata={"license": "CC0-1.0"})
    assert licence_of(tmp_path / "told.safetensors") == "CC0-1.0"
    save_file(to_transformers(state), tmp_path / "port.safetensors")
    assert licence_of(tmp_path / "port.safetensors") == SAPIENS_LICENCE


def test_what_the_header_says_of_the_rotation_is_kept(released: Path, tmp_path: Path) -> None:
    state, path = read_checked(released, recognise(released)), tmp_path / "port.safetensors"
    write_state(renamed(state, "transformers"), path, rope_dtype="bfloat16", licence="CC0")
    assert recognise(path).rope_dtype == "bfloat16" and licence_of(path) == "CC0"
    assert equal(read_checked(path, recognise(path)), state)
    write_state(renamed(state, "transformers"), path, rope_dtype="float16")
    with pytest.raises(ValueError, match="rope_dtype='float16'; known are float32, bfloat16"):
        recognise(path)
