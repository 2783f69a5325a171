"""The pictures of a report: what was seen, what was completed, and colours by feature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shard_files
import torch

from sapiens2.model.backbone import Backbone
from sapiens2.model.block import Attention
from sapiens2.model.rope import RopeTables
from sapiens2.model.sizes import Architecture
from sapiens2.pretrain import feature_pictures
from sapiens2.pretrain.feature_pictures import attention_pictures, class_attention, feature_pca, foreground_pca, otsu
from sapiens2.pretrain.objective import PretrainObjective
from sapiens2.pretrain.pictures import GREY, completions
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


def two_textures() -> torch.Tensor:
    """Images [2, 64, 96, 3]: a texture in the lower middle of a plain ground."""
    tile = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = np.full((64, 96, 3), 30, np.uint8)
    image[16:, 32:64] = np.tile(tile, (3, 2, 1))
    return torch.from_numpy(np.stack([image, image[:, ::-1]]))


def test_what_stands_out_is_coloured_and_the_ground_is_black() -> None:
    torch.manual_seed(0)
    backbone = Backbone(Architecture(dim=32, layers=2, heads=2)).eval()
    for picture in foreground_pca(backbone, two_textures()):
        lit = picture.any(-1)
        assert lit[16:, 32:64].mean() > 0.8 and not lit[:16].any() and not lit[:, :32].any() and not lit[:, 64:].any()


def test_otsu_cuts_between_two_groups() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(-3, 0.3, 200), rng.normal(4, 0.3, 40)])
    assert -2 < otsu(values) < 3
    assert np.isfinite(otsu(np.ones(5)))


def test_class_weights_are_those_that_mix_the_values() -> None:
    torch.manual_seed(0)
    attention = Attention(32, 4, 2, qk_norm=True, layer_scale=False)
    rows = RopeTables(8, "float32").rows(3, 4, torch.device("cpu")).with_prefix(9)
    x = torch.randn(2, 21, 32)
    with torch.no_grad():
        weights = feature_pictures._class_weights(attention, x, rows)
        values = attention.wv(x).unflatten(2, (2, -1)).transpose(1, 2).repeat_interleave(2, 1)
        mixed = torch.einsum("bhn,bhnd->bhd", weights, values).flatten(1)
        torch.testing.assert_close(attention.proj(mixed), attention(x, rows, 1)[:, 0])
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4))


def test_class_attention_is_that_of_the_last_block_on_the_patches() -> None:
    torch.manual_seed(0)
    backbone = Backbone(Architecture(dim=32, layers=2, heads=2)).eval()
    with torch.no_grad():
        backbone.blocks[-1].attn.wq.weight.zero_()  # type: ignore[union-attr, operator]
        backbone.blocks[-1].attn.wq.bias.zero_()  # type: ignore[union-attr, operator]
    weights = class_attention(backbone, two_textures())
    torch.testing.assert_close(weights, torch.full((2, 2, 4, 6), 1 / (9 + 24)))
    assert not backbone.blocks[-1].attn._forward_pre_hooks  # type: ignore[union-attr]


def test_attention_is_laid_over_the_picture() -> None:
    torch.manual_seed(0)
    backbone = Backbone(Architecture(dim=32, layers=2, heads=2)).eval()
    drawn = attention_pictures(backbone, two_textures())
    assert len(drawn) == 2 and len(drawn[0]) == 3 and drawn[0][0].shape == (64, 96, 3)
    weights = class_attention(backbone, two_textures())[0].mean(0)
    row, column = divmod(int(weights.argmax()), 6)
    strongest = drawn[0][0][row * 16 : row * 16 + 16, column * 16 : column * 16 + 16].astype(int)
    assert strongest[8, 8, 0] - strongest[8, 8, 2] > 30 and strongest.sum() >= 0.9 * drawn[0][0].sum() / 24
