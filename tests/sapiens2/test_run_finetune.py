"""Whole fine-tuning runs at their smallest: the backbone is taken over, losses fall, answers are drawn."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from sapiens2.engine.control import Control
from sapiens2.engine.interrupt import Interrupted
from sapiens2.evaluation.run import load_task as load_run
from sapiens2.model.backbone import build_backbone
from sapiens2.model.foreign import ForeignBackbone
from sapiens2.model.weights import load_weights, save_weights
from sapiens2.tasks.build import build_task
from sapiens2.tasks.config import FinetuneConfig
from sapiens2.tasks.head_specs import TASKS
from sapiens2.tasks.load import load_task
from sapiens2.tasks.recipes import micro
from sapiens2.tasks.run import _flops_per_image, finetune


def config(task: Any, steps: int = 2, **engine: Any) -> FinetuneConfig:
    base = micro(task).model_dump() | {"layer_decay": 1.0}
    base["engine"] |= {"steps": steps, "checkpoint_every": 100, "threads": 1} | engine
    return FinetuneConfig(**base)


@pytest.fixture(scope="module", autouse=True)
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAPIENS2_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("backbone") / "model.safetensors"
    save_weights(build_backbone("tiny"), path)
    return str(path)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_trains_and_shows_its_answers(task: str, backbone: str, tmp_path: Path) -> None:
    metrics = finetune(config(task), backbone=backbone, out=str(tmp_path / "out"), state=str(tmp_path / "state"))
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["task"] == task and metrics["images"] == 4 and len(metrics["digest"]) == 64
    about = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (about["task"], about["size"], about["image_size"]) == (task, "tiny", [64, 48])
    model = build_task(about["task"], about["size"])
    load_weights(model, tmp_path / "out" / "model.safetensors")
    fragment = json.loads((tmp_path / "out" / "fragment.json").read_text())
    samples = next(s for s in fragment["sections"] if s["title"] == "Training samples")
    assert len(samples["items"]) == 4 and samples["note"].startswith("Synthetic people, as the network was given them")
    answers = next(s for s in fragment["sections"] if s["title"] == "Answers")
    data = np.frombuffer(base64.b64decode(answers["items"][0]["jpeg"]), np.uint8)
    assert len(answers["items"]) == 4 and cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (64, 144, 3)


def test_the_loss_falls_and_the_run_resumes_bit_for_bit(backbone: str, tmp_path: Path) -> None:
    long = config("normal", steps=12, log_every=3, lr=2e-3)
    whole = finetune(long, backbone=backbone, out=str(tmp_path / "a" / "out"), state=str(tmp_path / "a" / "state"))
    assert whole["loss_final"] < 0.8 * whole["loss_first"]
    places = {"backbone": backbone, "out": str(tmp_path / "b" / "out"), "state": str(tmp_path / "b" / "state")}
    done = iter(range(1, 100))
    with pytest.raises(Interrupted, match="step 5 of 12"):
        finetune(long, **places, control=Control(stop=lambda: next(done) >= 5))
    assert finetune(long, **places)["digest"] == whole["digest"]


def test_the_backbone_is_where_training_starts(backbone: str, tmp_path: Path) -> None:
    still = config("albedo", steps=1, lr=1e-9, warmup_steps=0)
    finetune(still, backbone=backbone, out=str(tmp_path / "out"), state=str(tmp_path / "state"))
    start, end = build_backbone("tiny"), build_task("albedo", "tiny")
    load_weights(start, backbone)
    load_weights(end, tmp_path / "out" / "model.safetensors")
    for before, after in zip(start.parameters(), end.backbone.parameters(), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


def test_weights_of_another_shape_are_refused(tmp_path: Path, backbone: str) -> None:
    state = load_file(backbone)
    name = next(name for name, tensor in state.items() if tensor.ndim == 2)
    save_file(state | {name: torch.zeros(3, 5)}, tmp_path / "other.safetensors")
    places = {"out": str(tmp_path / "out"), "state": str(tmp_path / "state")}
    with pytest.raises(ValueError, match=re.escape(name)):
        finetune(config("pose"), backbone=str(tmp_path / "other.safetensors"), **places)
    assert not (tmp_path / "out").exists()


def test_arithmetic_is_counted_forward_and_backward() -> None:
    settings = config("pose")
    model = build_task("pose", "tiny")
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 64, 48))
    forward = counter.get_total_flops()
    assert forward > model.backbone.flops(64, 48) > 0
    assert _flops_per_image(settings) == pytest.approx(3 * forward)
    body = model.backbone.flops(64, 48)
    frozen = settings.model_copy(update={"freeze_backbone": True})
    assert _flops_per_image(frozen) == pytest.approx(3 * forward - 2 * body, rel=0.02)
    low_rank = settings.model_copy(update={"lora_rank": 4})
    assert _flops_per_image(low_rank) == pytest.approx(3 * forward - body, rel=0.02)


def test_a_foreign_backbone_is_trained_recorded_and_loaded_again(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs timm")
    torch.manual_seed(1)
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=12)
    save_file(net.state_dict(), tmp_path / "vit.safetensors")
    name = f"timm:vit_tiny_patch16_224:{tmp_path / 'vit.safetensors'}"
    chosen = FinetuneConfig(**config("normal").model_dump() | {"backbone": name, "lora_rank": 2, "ema": 0.5})
    assert len(chosen.backbone_sha256) == 64
    places = {"out": str(tmp_path / "out"), "state": str(tmp_path / "state")}
    metrics = finetune(chosen, **places)
    origin = metrics["backbone"]
    assert (origin["library"], origin["name"], origin["patch"]) == ("timm", "vit_tiny_patch16_224", 16)
    # The run's folder is enough afterwards: the file may be gone.
    (tmp_path / "vit.safetensors").rename(tmp_path / "moved.safetensors")
    model = load_task(places["out"], device="cpu")
    assert isinstance(model.backbone, ForeignBackbone) and model.image_size == (64, 48)
    with torch.no_grad():
        assert torch.isfinite(model(torch.randn(1, 3, 64, 48))["normals"]).all()
    save_file({n: t + 1 for n, t in net.state_dict().items()}, tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match="sha256"):
        finetune(chosen, **places)
    with pytest.raises(ValueError, match="both"):
        finetune(chosen, backbone=places["out"], **places)
    with pytest.raises(ValueError, match="neither"):
        finetune(config("normal"), **places)


def test_a_run_outlives_the_folder_that_it_started_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's configuration and the normalisation are kept with the weights; older runs need the folder."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    small = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    folder = tmp_path / "vit"
    vit = transformers.AutoConfig.for_model("vit", **small, image_size=64, patch_size=16)
    transformers.AutoModel.from_config(vit).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}')
    chosen = FinetuneConfig(**config("normal").model_dump() | {"backbone": f"hf:{folder}"})
    assert len(chosen.backbone_sha256) == 64
    places = {"out": str(tmp_path / "out"), "state": str(tmp_path / "state")}
    assert finetune(chosen, **places)["backbone"]["dim"] == 48
    images = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        wanted = load_task(places["out"], device="cpu")(images)["normals"]
    folder.rename(tmp_path / "moved")
    _, again = load_run(places["out"])
    for model in (load_task(places["out"], device="cpu"), again.cpu()):
        assert isinstance(model.backbone, ForeignBackbone) and model.backbone.mean == [0.1, 0.2, 0.3]
        with torch.no_grad():
            torch.testing.assert_close(model(images)["normals"], wanted)
    about = json.loads((tmp_path / "out" / "config.json").read_text())
    del about["foreign"]  # as earlier versions wrote it
    about["config"]["backbone_sha256"] = ""
    (tmp_path / "out" / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"keeps no structure.*put"):
        load_task(places["out"], device="cpu")
    (tmp_path / "moved").rename(folder)
    with torch.no_grad():
        torch.testing.assert_close(load_task(places["out"], device="cpu")(images)["normals"], wanted)
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="sha256"):
        finetune(chosen, **places)
