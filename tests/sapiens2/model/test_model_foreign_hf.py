"""Folders and files of transformers: what save_pretrained writes is read again, and told apart by its content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sapiens2.model.foreign import build_foreign, state_digest
from sapiens2.model.foreign_files import file_sha256, local_digest, local_files, shown_name
from sapiens2.model.foreign_names import parse_name

transformers = pytest.importorskip("transformers", reason="needs transformers")

SMALL: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 16,
}
SWIN = {"embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "image_size": 64, "window_size": 2}
CONVS = {"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1]}
KINDS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("dinov2", "dinov2_with_registers", "dinov3_vit", "vit", "vit_mae", "beit", "deit"), SMALL),
    **dict.fromkeys(("ijepa", "clip_vision_model", "siglip_vision_model", "data2vec-vision"), SMALL),
    "swin": SWIN,
    "convnextv2": CONVS,
    "dinov3_convnext": CONVS,
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)


def saved(folder: Path, kind: str) -> nn.Module:
    """A small model of a kind, written as the library does."""
    config = transformers.AutoConfig.for_model(kind, **KINDS[kind])
    model: nn.Module = transformers.AutoModel.from_config(config)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_library_writes_is_read_as_a_folder_as_a_file_and_under_other_names(kind: str, tmp_path: Path) -> None:
    model, file = saved(tmp_path, kind), tmp_path / "model.safetensors"
    wanted, written = state_digest(model), load_file(file)
    whole = build_foreign(f"hf:{tmp_path}").eval()
    assert state_digest(whole.net) == state_digest(build_foreign(f"hf:{tmp_path}:{file}").net) == wanted
    prefix = model.base_model_prefix
    for name, state in {
        "prefixed": {f"{prefix}.{key}": tensor for key, tensor in written.items()} | {"classifier.bias": torch.ones(3)},
        "bare": {key: tensor.clone() for key, tensor in model.state_dict().items()},
    }.items():
        save_file(state, tmp_path / f"{name}.safetensors")
        assert state_digest(build_foreign(f"hf:{tmp_path}:{tmp_path / name}.safetensors").net) == wanted, name
    images = torch.randn(2, 3, 64, 48)  # a side that a stride of 32 does not divide
    with torch.no_grad():
        seen = whole(images)
    assert seen.patches.shape == (2, whole.dim, 4, 3) and seen.cls.shape == (2, whole.dim)
    # What a run keeps of it is JSON, and enough without the folder.
    kept = json.loads(json.dumps(whole.structure()))
    again = build_foreign("hf:/gone", weights=False, structure=kept).eval()
    again.load_state_dict(whole.state_dict())
    with torch.no_grad():
        assert torch.equal(again(images).patches, seen.patches)


@pytest.mark.parametrize("kind", ["dinov2", "clip_vision_model", "swin"])
def test_files_that_do_not_fit_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    saved(tmp_path, kind)
    state = load_file(tmp_path / "model.safetensors")
    lost = next(key for key in state if key.startswith("encoder.") and key.endswith("weight"))
    part = "layer" if kind != "swin" else "0"
    for name, wrong, said in (
        ("missing", {key: tensor for key, tensor in state.items() if key != lost}, part),
        ("shape", state | {lost: torch.zeros(3)}, part),
        ("extra", state | {"bogus.weight": torch.zeros(3)}, r"bogus\.weight"),
    ):
        save_file(wrong, tmp_path / f"{name}.safetensors")
        with pytest.raises(ValueError, match=f"does not fit.*{said}"):
            build_foreign(f"hf:{tmp_path}:{tmp_path / name}.safetensors")
    save_file({key: tensor for key, tensor in state.items() if key != lost}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"does not fit.*{part}"):  # the library only warns, and makes it up
        build_foreign(f"hf:{tmp_path}")


def test_weights_in_half_precision_are_trained_in_float32(tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model("vit", **SMALL)
    transformers.AutoModel.from_config(config).half().save_pretrained(tmp_path)
    for name in (f"hf:{tmp_path}", f"hf:{tmp_path}:{tmp_path / 'model.safetensors'}", f"hf:{tmp_path}:random"):
        assert {p.dtype for p in build_foreign(name).parameters()} == {torch.float32}


def test_a_folder_is_known_by_what_lies_in_it(tmp_path: Path) -> None:
    saved(tmp_path, "vit")
    name = parse_name(f"hf:{tmp_path}")
    (tmp_path / "preprocessor_config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"not looked at")
    (tmp_path / "README.md").write_text("neither is this")
    assert [f.name for f in local_files(name)] == ["model.safetensors", "config.json", "preprocessor_config.json"]
    seen = {local_digest(name)}
    for file, text in (("config.json", "{} "), ("preprocessor_config.json", "{ }"), ("model.safetensors", "other")):
        (tmp_path / file).write_text(text)
        seen.add(local_digest(name))
    assert len(seen) == 4
    (tmp_path / "README.md").write_text("changed")
    assert local_digest(name) in seen
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}
    (tmp_path / "model.safetensors").rename(tmp_path / "model-1.safetensors")
    (tmp_path / "model-2.safetensors").write_bytes(b"second")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(shards))
    assert [f.name for f in local_files(name)][:3] == [
        "model.safetensors.index.json",
        "model-1.safetensors",
        "model-2.safetensors",
    ]
    assert shown_name(name) == f"hf:{tmp_path.name} ({local_digest(name)[:8]})"
    file = tmp_path / "model-2.safetensors"
    assert shown_name(parse_name(f"timm:vit:{file}")) == f"timm:vit ({file_sha256(file)[:8]})"
    assert [shown_name(parse_name(n)) for n in ("timm:vit:random", "timm:vit")] == ["timm:vit:random", "timm:vit"]


def test_a_pass_that_fails_changes_nothing(tmp_path: Path) -> None:
    """Swin shrinks its windows to a small picture and keeps them so: no size would do after such a trial."""
    config = transformers.SwinConfig(**SWIN | {"image_size": 224, "window_size": 7})
    transformers.SwinModel(config).save_pretrained(tmp_path)
    net = build_foreign(f"hf:{tmp_path}")
    assert net.fixed == (224, 224) and net(torch.zeros(1, 3, 64, 48)).patches.shape == (1, 96, 4, 3)
