"""Spreading a backbone's patches over more pixels changes nothing but the size of the picture."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sapiens2.model.backbone import build_backbone
from sapiens2.model.patches import with_patches


def test_a_tiny_backbone_says_what_nano_says_of_half_the_picture() -> None:
    torch.manual_seed(0)
    nano, tiny = build_backbone("nano").eval(), build_backbone("tiny").eval()
    tiny.load_state_dict(with_patches(nano.state_dict(), 16))
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(tiny(images).patches, nano(F.avg_pool2d(images, 2)).patches, rtol=1e-4, atol=1e-5)


def test_patches_of_the_same_size_stay_and_others_are_refused() -> None:
    state = build_backbone("nano").state_dict()
    torch.testing.assert_close(with_patches(state, 8), dict(state), rtol=0, atol=0)
    with pytest.raises(ValueError, match="use a multiple of 8"):
        with_patches(state, 12)
