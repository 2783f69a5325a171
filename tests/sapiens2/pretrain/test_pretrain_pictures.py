"""The pictures of a report: what was seen, what was completed, and colours by feature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shard_files
import torch

from sapiens2.model.backbone import Backbone
from sapiens2.model.sizes import Architecture
from sapiens2.pretrain.objective import PretrainObjective
from sapiens2.pretrain.pictures import GREY, completions, feature_pca
from sapiens2.pretrain.recipes import micro
from sapiens2.pretrain.source import PretrainSource


def test_visible_patches_are_kept_and_the_others_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = micro()
    objective = PretrainObjective(config)
    batch = PretrainSource(shard_files.shards(tmp_path, 4), config).batch(0, 0, 1)
    shown = completions(objective, batch, 2)
    assert len(shown) == 2
    for i, (image, masked, completed) in enumerate(shown):
        source = batch["globals"][i, 0].numpy()
        assert image.dtype == masked.dtype == completed.dtype == np.uint8
        assert np.array_equal(image, source)
        for token in range(16):
            y, x = token // 4 * 16, token % 4 * 16
            place = np.s_[y : y + 16, x : x + 16]
            if token in batch["kept"][i, 0]:
                assert np.array_equal(masked[place], source[place])
                assert np.array_equal(completed[place], source[place])
            else:
                assert (masked[place] == GREY).all()
                # A decoder that knows nothing yet answers near zero: the patch's own mean.
                assert np.abs(completed[place].astype(float) - source[place].mean()).mean() < 60
    assert not np.array_equal(shown[0].completed, shown[0].masked)


def test_a_perfect_decoder_completes_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sapiens2.pretrain.decoder import complement, take
    from sapiens2.pretrain.losses import normalised_targets

    config = micro()
    objective = PretrainObjective(config)
    batch = PretrainSource(shard_files.shards(tmp_path, 4), config).batch(0, 0, 1)

    def perfect(images: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        masked = complement(kept, config.tokens)
        return normalised_targets(take(objective.target_patches(images), masked))[0], masked

    monkeypatch.setattr(objective, "complete", perfect)
    for image, _, completed in completions(objective, batch, 4):
        assert np.abs(image.astype(int) - completed).max() <= 1


def test_feature_colours_follow_the_content() -> None:
    """Two halves of different texture get two colours, alike in both images."""
    torch.manual_seed(0)
    backbone = Backbone(Architecture(dim=32, layers=2, heads=2)).eval()
    tile = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = np.full((64, 96, 3), 30, np.uint8)
    image[:, 48:] = np.tile(tile, (4, 3, 1))
    images = torch.from_numpy(np.stack([image, image[:, ::-1]]))
    first, second = feature_pca(backbone, images)
    assert first.shape == (64, 96, 3) and first.dtype == np.uint8
    red = first[..., 0].astype(float)  # the main direction; with two contents the others are noise
    assert abs(red[:, :48].mean() - red[:, 48:].mean()) > 200
    assert max(red[:, :48].std(), red[:, 48:].std()) < 25
    assert abs(second[:, 48:, 0].mean() - red[:, :48].mean()) < 25
