"""Frozen backbones: ours and other people's behind one call, each with its own normalisation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from sapiens2 import build_backbone, save_weights
from sapiens2.evaluation.frozen import OurBackbone, extract, open_backbone
from sapiens2.model.normalise import normalise

IMAGES = torch.randint(0, 256, (3, 64, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_ours_from_a_file_is_the_backbone_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = build_backbone("nano").eval()
    save_weights(backbone, tmp_path / "model.safetensors")
    frozen = open_backbone(str(tmp_path / "model.safetensors"))
    assert isinstance(frozen, OurBackbone) and frozen.backbone.architecture == backbone.architecture
    cls, patches = frozen(IMAGES)
    with torch.no_grad():
        expected = backbone(normalise(IMAGES))
    assert torch.equal(cls, expected.cls) and torch.equal(patches, expected.patches)
    assert not cls.requires_grad and frozen.grid(64, 48) == tuple(patches.shape[2:])
    with pytest.raises(ValueError, match="does not divide into tokens"):
        frozen(IMAGES[:, :63])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2", "resnet18"])
def test_timm_networks_fill_one_grid(name: str) -> None:
    frozen = open_backbone(f"timm:{name}", pretrained=False)
    features = extract(frozen, [image.numpy() for image in IMAGES], (4, 3), batch=2)
    assert features.cls.shape == (3, frozen.dim) and features.patches.shape == (3, frozen.dim, 4, 3)
    own = extract(frozen, [image.numpy() for image in IMAGES], None)
    assert tuple(own.patches.shape[2:]) == frozen.grid(64, 48)
    assert features.mean.shape == (3, frozen.dim)


def test_timm_sees_its_own_normalisation() -> None:
    frozen = open_backbone("timm:vit_tiny_patch16_224", pretrained=False)
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, dynamic_img_size=True).eval()
    with torch.no_grad():
        tokens = network.forward_features((IMAGES.movedim(-1, 1).float() / 255 - 0.5) / 0.5)
    cls, patches = frozen(IMAGES)
    torch.testing.assert_close(cls, tokens[:, 0])
    torch.testing.assert_close(patches.flatten(2), tokens[:, 1:].transpose(1, 2))


def test_timm_takes_weights_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(7)
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    frozen = open_backbone(f"timm:vit_tiny_patch16_224@{tmp_path / 'w.safetensors'}")
    for name, tensor in network.state_dict().items():
        assert torch.equal(frozen.network.state_dict()[name], tensor), name  # type: ignore[attr-defined]


def test_transformers_from_a_folder(tmp_path: Path) -> None:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    torch.manual_seed(0)
    network = Dinov2WithRegistersModel(config).eval()
    network.save_pretrained(tmp_path)
    frozen = open_backbone(f"hf:{tmp_path}")
    images = torch.randint(0, 256, (2, 28, 42, 3), dtype=torch.uint8)
    cls, patches = frozen(images)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        tokens = network(((images / 255 - mean) / std).movedim(-1, 1)).last_hidden_state
    torch.testing.assert_close(cls, tokens[:, 0])
    torch.testing.assert_close(patches.flatten(2), tokens[:, 1 + config.num_register_tokens :].transpose(1, 2))


def test_half_keeps_the_map_in_16_bits() -> None:
    torch.manual_seed(0)
    frozen = OurBackbone(build_backbone("nano"), "ours")
    images = [image.numpy() for image in IMAGES]
    full, half = extract(frozen, images, None), extract(frozen, images, None, half=True)
    assert half.patches.dtype == torch.float16 and half.mean.dtype == torch.float32
    np.testing.assert_allclose(half.mean, full.mean, atol=2e-3)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("timm:vit_smal", "timm knows no model 'vit_smal'"),
        ("timm:resnet18@/no/such/file", "there are no weights at /no/such/file"),
        ("hf:/no/such/folder", "no weights for hf:/no/such/folder"),
        ("torch:resnet", "use timm:NAME, hf:NAME, or the path"),
    ],
)
def test_unknown_backbones_are_named(reference: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_backbone(reference)


def test_a_file_that_holds_another_network_is_refused(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no Sapiens2 backbone"):
        open_backbone(str(tmp_path / "other.safetensors"))
    with pytest.raises(FileNotFoundError, match="there are no weights"):
        open_backbone(str(tmp_path / "none.safetensors"))
