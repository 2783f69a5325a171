"""Copy descriptors that come from a file: real loading code on small networks with random weights."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from curation.models.copy_descriptor import DIMS, build_copy_descriptor
from curation.models.copy_sscd import SscdCopyDescriptor


class TinyNetwork(torch.nn.Module):
    """The interface of SSCD: [B, 3, H, W] to [B, 512]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 512, 16, stride=16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).mean(dim=(2, 3))


class Flat(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(0, 1, 2, 3))


@pytest.fixture
def network(tmp_path: Path) -> tuple[Path, TinyNetwork]:
    torch.manual_seed(0)
    module = TinyNetwork().eval()
    path = tmp_path / "sscd.torchscript.pt"
    torch.jit.script(module).save(str(path))
    return path, module


def test_sscd_runs_its_file_on_normalised_pictures(network: tuple[Path, TinyNetwork]) -> None:
    path, module = network
    descriptor = build_copy_descriptor("sscd", {"sscd_disc_mixup": str(path)})
    picture = np.random.default_rng(0).integers(0, 255, (288, 432, 3), dtype=np.uint8)  # short side 288: not resized
    found = descriptor.embed([picture])
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = torch.from_numpy(((picture / 255 - mean) / deviation).transpose(2, 0, 1)[None].astype(np.float32))
    with torch.no_grad():
        expected = torch.nn.functional.normalize(module(x))[0].numpy()
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    assert descriptor.dim == DIMS["sscd"] == 512


def test_sscd_resizes_any_picture_and_travels_to_workers(network: tuple[Path, TinyNetwork]) -> None:
    descriptor = pickle.loads(pickle.dumps(SscdCopyDescriptor(network[0])))
    rng = np.random.default_rng(1)
    shapes = [(40, 30), (900, 1200), (288, 288), (20, 2000)]
    pictures = [rng.integers(0, 255, (*shape, 3), dtype=np.uint8) for shape in shapes]
    together = descriptor.embed(pictures)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for row, picture in zip(together, pictures, strict=True):
        np.testing.assert_array_equal(row, descriptor.embed([picture])[0])


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.pt"):
        SscdCopyDescriptor(tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(ValueError, match="not a TorchScript file"):
        SscdCopyDescriptor(tmp_path / "text.pt")
    torch.jit.script(Flat()).save(str(tmp_path / "flat.pt"))
    with pytest.raises(ValueError, match=r"tensor \[1, dim\]"):
        SscdCopyDescriptor(tmp_path / "flat.pt")


def test_unknown_names_and_missing_weights() -> None:
    with pytest.raises(ValueError, match="choose one of builtin, mobilenet, sscd"):
        build_copy_descriptor("dino", {})
    with pytest.raises(ValueError, match="needs the weights sscd_disc_mixup"):
        build_copy_descriptor("sscd", {})
