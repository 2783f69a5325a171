"""Frozen backbones: ours and other people's behind one call, each with its own normalisation."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sapiens2 import build_backbone, save_weights
from sapiens2.evaluation.frozen import OurBackbone, extract, load_backbone, open_backbone
from sapiens2.model.normalise import normalise

IMAGES = torch.randint(0, 256, (3, 64, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_ours_from_a_file_is_the_backbone_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = build_backbone("nano").eval()
    save_weights(backbone, tmp_path / "model.safetensors")
    frozen = open_backbone(str(tmp_path / "model.safetensors"))
    assert frozen.backbone.architecture == backbone.architecture
    told = load_backbone(str(tmp_path / "model.safetensors"), architecture=backbone.architecture)
    assert torch.equal(told(IMAGES)[0], frozen(IMAGES)[0])
    cls, patches = frozen(IMAGES)
    with torch.no_grad():
        expected = backbone(normalise(IMAGES))
    assert torch.equal(cls, expected.cls) and torch.equal(patches, expected.patches)
    assert not cls.requires_grad and frozen.grid(64, 48) == tuple(patches.shape[2:])
    with pytest.raises(ValueError, match="do not divide into cells of 8 pixels"):
        frozen(IMAGES[:, :63])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_dinov2", "resnet18"])
@pytest.mark.parametrize("cell", [16, 8])
def test_other_backbones_fill_the_grid_of_ours(name: str, cell: int) -> None:
    frozen = open_backbone(f"timm:{name}:random", cell=cell)
    grid = (64 // cell, 48 // cell)
    cls, patches = frozen(IMAGES)
    assert frozen.grid(64, 48) == grid == tuple(patches.shape[2:])
    assert cls.shape == (3, frozen.dim) and patches.shape[:2] == (3, frozen.dim)
    features = extract(frozen, [image.numpy() for image in IMAGES], (2, 3), batch=2)
    assert features.patches.shape == (3, frozen.dim, 2, 3) and features.mean.shape == (3, frozen.dim)


def test_another_backbone_is_the_network_behind_its_own_normalisation() -> None:
    frozen = open_backbone("timm:vit_tiny_patch16_224:random")
    network = frozen.backbone.net
    with torch.no_grad():
        tokens = network.forward_features((IMAGES.movedim(-1, 1).float() / 255 - 0.5) / 0.5)  # type: ignore[operator]
    cls, patches = frozen(IMAGES)
    torch.testing.assert_close(cls, tokens[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(patches.flatten(2), tokens[:, 1:].transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_backbones_of_one_name_are_told_apart_by_their_content(tmp_path: Path) -> None:
    """Files of one name, files of one architecture, and fresh weights: each row of a table bears another name."""
    found = []
    for seed, folder in enumerate(("aa", "bb")):
        torch.manual_seed(seed)
        (tmp_path / folder).mkdir()
        save_weights(build_backbone("nano"), tmp_path / folder / "model.safetensors")
        found.append((open_backbone(str(tmp_path / folder / "model.safetensors")), tmp_path / folder))
    for seed in (2, 3):
        torch.manual_seed(seed)
        fresh = open_backbone("timm:resnet10t:random")
        assert (fresh.name, fresh.origin) == ("timm:resnet10t:random", "random weights")
        network: torch.nn.Module = fresh.backbone.net  # type: ignore[assignment]
        save_file(network.state_dict(), tmp_path / "model.safetensors")
        file = (tmp_path / "model.safetensors").rename(tmp_path / f"tt_{seed}.safetensors")
        found.append((open_backbone(f"timm:resnet10t:{file}"), file))
    for frozen, place in found:
        sha256 = hashlib.sha256((place if place.is_file() else place / "model.safetensors").read_bytes()).hexdigest()
        kind = "timm:resnet10t" if place.is_file() else "model"
        assert (frozen.name, frozen.origin) == (f"{kind} ({sha256[:8]})", f"sha256={sha256}")
    assert len({frozen.name for frozen, _ in found}) == 4


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
        ("timm:vit_smal", "timm has no model 'vit_smal'"),
        ("timm:resnet18:/no/such/file", "there is no file /no/such/file"),
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
