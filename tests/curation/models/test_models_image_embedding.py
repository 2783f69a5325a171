"""Image vectors: what they must be near to and far from, CLIP by random weights, aesthetic heads against torch."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import open_clip
import pytest
import skimage
import torch

from curation.models.aesthetic import AestheticHead
from curation.models.image_embedding import DescriptorEmbedding, appearance, orthogonal_projection
from curation.models.open_clip_model import ClipScorer, ClipTower
from curation.models.scorer import View

DATA = Path(skimage.__file__).parent / "data"


def photo(name: str) -> np.ndarray:
    return cv2.imread(str(DATA / name))[..., ::-1].copy()


def vector(pixels: np.ndarray, boxes: tuple = ()) -> np.ndarray:
    return DescriptorEmbedding().score([View("x", pixels, boxes=boxes)])[0]["embedding"]


def test_the_same_picture_at_another_size_is_nearest() -> None:
    names = ["astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png"]
    pictures = [photo(n) for n in names]
    vectors = np.stack([vector(p) for p in pictures])
    smaller = np.stack([vector(cv2.resize(p, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)) for p in pictures])
    similarity = smaller @ vectors.T
    assert (similarity.argmax(axis=1) == np.arange(len(names))).all()
    others = similarity[~np.eye(len(names), dtype=bool)]
    assert similarity.diagonal().min() > 0.95 and others.max() < 0.8
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors.shape[1] == DescriptorEmbedding.dim


def test_the_person_has_half_of_the_vector() -> None:
    pixels = photo("astronaut.png")
    without, with_person = vector(pixels), vector(pixels, ((100, 0, 400, 512),))
    assert not without[128:].any()
    assert np.linalg.norm(with_person[:128]) == pytest.approx(np.sqrt(0.5), abs=1e-5)
    np.testing.assert_allclose(with_person[128:] * np.sqrt(2), appearance(pixels[0:512, 100:400]), atol=1e-5)


def test_each_part_notices_what_it_is_for() -> None:
    pixels = photo("coffee.png")
    tinted = np.clip(pixels * np.array([0.5, 1, 1.5]), 0, 255).astype(np.uint8)
    turned = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    base, colour, turn = appearance(pixels), appearance(tinted), appearance(turned)
    assert base @ colour < 0.9 and base @ turn < 0.9
    assert colour[48:96] @ base[48:96] > 0.9 * (base[48:96] @ base[48:96])  # a tint leaves the gradients


def test_the_projection_is_orthonormal_and_fixed_by_its_seed() -> None:
    p = orthogonal_projection(300, 40, 7)
    np.testing.assert_allclose(p.T @ p, np.eye(40), atol=1e-5)
    np.testing.assert_array_equal(p, orthogonal_projection(300, 40, 7))
    assert np.abs(p - orthogonal_projection(300, 40, 8)).max() > 0.01


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP with random weights, saved as its users save them."""
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-random.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-random.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-random")
    torch.save(model.state_dict(), folder / "tiny.pt")
    return folder / "tiny.pt"


def test_clip_vectors_are_the_models_own(clip_file: Path) -> None:
    pictures = [photo("coffee.png"), photo("astronaut.png")]
    vectors = ClipTower("tiny-random", clip_file).embed(pictures)
    from PIL import Image

    model, _, preprocess = open_clip.create_model_and_transforms("tiny-random", pretrained=str(clip_file))
    with torch.no_grad():
        expected = model.eval().encode_image(torch.stack([preprocess(Image.fromarray(p)) for p in pictures]))
    expected = torch.nn.functional.normalize(expected, dim=-1).numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_clip_scorer_joins_picture_person_and_head(clip_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    linear = torch.nn.Linear(32, 1)
    torch.save(linear.state_dict(), tmp_path / "head.pth")
    scorer = ClipScorer("tiny-random", clip_file, dim=32, aesthetic_path=tmp_path / "head.pth")
    pixels = photo("astronaut.png")
    alone, person = scorer.score([View("a", pixels), View("b", pixels, boxes=((100, 0, 400, 512),))])
    whole = scorer.tower.embed([pixels])[0]
    np.testing.assert_allclose(alone["embedding"], np.r_[whole, np.zeros(32)], atol=1e-6)
    crop = scorer.tower.embed([pixels[0:512, 100:400]])[0]
    np.testing.assert_allclose(person["embedding"], np.r_[whole, crop] / np.sqrt(2), atol=1e-5)
    with torch.no_grad():
        assert alone["aesthetic"] == pytest.approx(float(linear(torch.from_numpy(whole)[None])), abs=1e-5)
    assert ClipScorer("tiny-random", clip_file, dim=32).score([View("a", pixels)])[0]["aesthetic"] is None


def test_clip_mistakes_are_explained(clip_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no architecture"):
        ClipTower("no-such-model", clip_file).embed([photo("coffee.png")])
    with pytest.raises(ValueError, match="clip_dim"):
        ClipScorer("tiny-random", clip_file, dim=48).score([View("a", photo("coffee.png"))])
    torch.save(torch.nn.Linear(48, 1).state_dict(), tmp_path / "head.pth")
    with pytest.raises(ValueError, match="length 48"):
        ClipScorer("tiny-random", clip_file, dim=32, aesthetic_path=tmp_path / "head.pth")


def test_the_improved_predictors_layout_is_the_product_of_its_layers(tmp_path: Path) -> None:
    torch.manual_seed(2)
    sizes = [24, 16, 8, 1]
    layers = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        layers += [torch.nn.Linear(a, b)] + ([torch.nn.Dropout(0.2)] if i < 2 else [])
    net = torch.nn.Sequential(*layers)
    torch.save({f"layers.{k}": v for k, v in net.state_dict().items()}, tmp_path / "mlp.pth")
    x = torch.nn.functional.normalize(torch.randn(5, 24), dim=-1)
    with torch.no_grad():
        expected = net.eval()(x)[:, 0].numpy()
    head = AestheticHead(tmp_path / "mlp.pth")
    assert head.dim == 24
    np.testing.assert_allclose(head.score(x.numpy()), expected, atol=1e-5)
    with pytest.raises(ValueError, match="length 24"):
        head.score(np.zeros((2, 25), np.float32))


def test_files_that_are_no_head_are_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3, 3)}, tmp_path / "a.pth")
    torch.save(torch.nn.Linear(8, 3).state_dict(), tmp_path / "b.pth")
    torch.save(torch.nn.Linear(8, 1), tmp_path / "pickled.pth")
    for name in ("a.pth", "b.pth", "pickled.pth"):
        with pytest.raises(ValueError, match=name):
            AestheticHead(tmp_path / name)
