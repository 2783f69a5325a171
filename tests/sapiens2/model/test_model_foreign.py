"""Foreign backbones: one grid for every patch, their own normalisation, strict files, honest records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sapiens2.model.foreign import ForeignBackbone, build_foreign, state_digest
from sapiens2.model.foreign_names import parse_name

pytest.importorskip("timm", reason="needs timm")
transformers = pytest.importorskip("transformers", reason="needs transformers")

SMALL: dict[str, int] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    """A local transformers folder of a kind of model, with weights."""

    def make(kind: str, **changes: Any) -> tuple[str, nn.Module]:
        config = transformers.AutoConfig.for_model(kind, **{**SMALL, **changes})
        model = transformers.AutoModel.from_config(config).eval()
        model.save_pretrained(tmp_path / kind)
        return str(tmp_path / kind), model

    return make


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        ("timm:vit_tiny_patch16_224:random", 192),
        ("timm:vit_small_patch14_reg4_dinov2:random", 384),
        ("timm:resnet10t:random", 512),
    ],
)
def test_every_patch_answers_on_the_grid_of_ours(name: str, dim: int) -> None:
    backbone = build_foreign(name).eval()
    with torch.no_grad():
        seen = backbone(torch.randn(2, 3, 64, 48))
    assert seen.patches.shape == (2, dim, 4, 3) and seen.cls.shape == (2, dim) and seen.registers.shape == (2, 0, dim)
    with pytest.raises(ValueError, match="cells of 16"):
        backbone(torch.randn(1, 3, 60, 48))


@pytest.mark.parametrize("kind", ["dinov2", "vit_mae", "dinov3_vit"])
def test_hf_features_are_the_models_own(kind: str, folder: Any) -> None:
    """Tokens as the library gives them for the picture in its own normalisation, in their places."""
    patch = 14 if kind == "dinov2" else 16
    where, model = folder(kind, image_size=patch * 4, patch_size=patch)
    backbone = build_foreign(f"hf:{where}").eval()
    pixels = torch.rand(2, 3, 4 * 16, 3 * 16)
    ours = (pixels - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    with torch.no_grad():
        seen = backbone(ours)
        asked = ours
        if patch != 16:
            asked = nn.functional.interpolate(ours, (4 * patch, 3 * patch), mode="bicubic", antialias=True)
        more: dict[str, Any] = {}
        if kind == "vit_mae":
            model.config.mask_ratio = 0.0
            more = {"noise": torch.arange(12.0).expand(2, -1), "interpolate_pos_encoding": True}
        hidden = model(pixel_values=asked, **more).last_hidden_state
    tokens = hidden[:, -12:].mT.reshape(2, 48, 4, 3)
    assert ((seen.patches - tokens).norm() / tokens.norm()).item() <= 1e-5
    assert ((seen.cls - hidden[:, 0]).norm() / hidden[:, 0].norm()).item() <= 1e-5


def test_timm_features_are_the_models_own_in_its_normalisation() -> None:
    """This model was trained on pixels in -1..1: the adapter must undo ours."""
    backbone = build_foreign("timm:vit_tiny_patch16_224:random").eval()
    pixels = torch.rand(1, 3, 32, 48)
    ours = (pixels * 255 - torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)) / torch.tensor(
        [58.395, 57.12, 57.375]
    ).view(3, 1, 1)
    with torch.no_grad():
        seen = backbone(ours)
        tokens = backbone.net.forward_features((pixels - 0.5) / 0.5)  # type: ignore[operator]
    torch.testing.assert_close(seen.cls, tokens[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen.patches.flatten(2).mT, tokens[:, 1:], rtol=1e-4, atol=1e-4)


def test_a_local_file_is_loaded_strictly_and_recorded(tmp_path: Path) -> None:
    name = "timm:vit_tiny_patch16_224"
    first = build_foreign(f"{name}:random")
    file = tmp_path / "weights.safetensors"
    save_file({**first.net.state_dict(), "head.weight": torch.zeros(5, 192)}, file)
    again = build_foreign(f"{name}:{file}")
    assert state_digest(again.net) == state_digest(first.net) != state_digest(build_foreign(f"{name}:random").net)
    about = again.described()
    assert about["weights_sha256"] == state_digest(first.net) and about["file"] == str(file) and about["patch"] == 16
    state = first.net.state_dict()
    lost = state.pop("blocks.3.mlp.fc1.weight")
    save_file(state, file)
    with pytest.raises(ValueError, match=r"blocks\.3\.mlp\.fc1\.weight"):
        build_foreign(f"{name}:{file}")
    save_file(state | {"blocks.3.mlp.fc1.weight": lost[:5].clone()}, file)
    with pytest.raises(ValueError, match=r"blocks\.3\.mlp\.fc1\.weight"):
        build_foreign(f"{name}:{file}")


def test_names_that_name_nothing_are_refused(tmp_path: Path) -> None:
    for text, message in (
        ("torchvision:resnet18", "timm:NAME"),
        ("timm:", "timm:NAME"),
        ("timm:vit_tiny_patch16_224:/nowhere.pth", "no file"),
        ("timm:vit_gigantic_patch3", "no model"),
        (f"hf:{tmp_path}:random", "folder with a config.json"),
    ):
        with pytest.raises(ValueError, match=message):
            build_foreign(text)
    assert parse_name("hf:a/b").file is None


def test_structure_alone_needs_no_file() -> None:
    with torch.device("meta"):
        made = build_foreign("timm:vit_tiny_patch16_224:/nowhere.pth", weights=False)
    assert isinstance(made, ForeignBackbone) and all(p.is_meta for p in made.parameters())


@pytest.mark.parametrize(
    ("name", "dim", "fixed"),
    [
        ("beit_base_patch16_224", 768, (224, 224)),  # takes one size only
        ("hiera_tiny_224", 768, (224, 224)),  # has no norm behind its last map either
        ("samvit_base_patch16", 256, None),  # narrower than it says, by its neck
    ],
)
def test_a_net_is_what_it_answers_and_not_what_its_library_says(name: str, dim: int, fixed: Any) -> None:
    with torch.device("meta"):
        made = build_foreign(f"timm:{name}:random")
        seen = made(torch.zeros(2, 3, 128, 96))
    assert (made.dim, made.fixed) == (dim, fixed) and made.net.training
    assert seen.patches.shape == (2, dim, 8, 6) and seen.cls.shape == (2, dim)


def test_a_net_of_one_size_sees_the_picture_squeezed_and_one_without_maps_is_refused() -> None:
    class Fixed(ForeignBackbone):
        def tokens(self, images: torch.Tensor) -> tuple[None, torch.Tensor]:
            if images.shape[-2:] != (48, 48):
                raise AssertionError("takes 48 x 48 only")
            return None, self.net(images)

    name, net = parse_name("timm:x:random"), nn.Conv2d(3, 5, 16, 16)
    about: dict[str, Any] = {"patch": 99, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    made, images = Fixed(net, name, own=(48, 48), **about), torch.randn(1, 3, 64, 96)
    assert (made.dim, made.patch, made.fixed) == (5, 16, (48, 48))
    small = nn.functional.interpolate(images, (48, 48), mode="bicubic", antialias=True)
    wanted = nn.functional.interpolate(net(small), (4, 6), mode="bilinear")
    torch.testing.assert_close(made(images).patches, wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"timm:x gives no maps .takes 48 x 48 only.: choose another model"):
        Fixed(net, name, **about)
