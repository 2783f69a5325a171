"""Heatmaps: coordinates survive encoding and decoding to a fraction of a pixel."""

from __future__ import annotations

import numpy as np
import torch

from sapiens2.tasks.build import TaskModel
from sapiens2.tasks.flip_test import flip_tested
from sapiens2.tasks.heatmaps import decode, encode, heatmap_sigma, mirrored, to_heatmap, to_image
from sapiens2.tasks.vocabulary import keypoints


def test_udp_maps_corners_to_corners_and_back() -> None:
    corners = torch.tensor([[0.0, 0.0], [767.0, 1023.0]])
    on_map = to_heatmap(corners, (1024, 768), (256, 192))
    torch.testing.assert_close(on_map, torch.tensor([[0.0, 0.0], [191.0, 255.0]]))
    torch.testing.assert_close(to_image(on_map, (1024, 768), (256, 192)), corners)


def test_gaussians_have_peak_one_and_end_at_three_sigma() -> None:
    maps = encode(torch.tensor([[[20.0, 30.0]]]), (64, 48), 2.0)
    assert maps.max() == 1 and maps[0, 0, 30, 20] == 1
    rows, columns = torch.nonzero(maps[0, 0], as_tuple=True)
    assert rows.min() == 24 and rows.max() == 36 and columns.min() == 14 and columns.max() == 26
    assert float(maps[0, 0, 30, 22]) == float(np.float32(np.exp(-0.5)))


def test_decode_inverts_encode_below_a_tenth_of_a_pixel() -> None:
    rng = np.random.default_rng(0)
    for size, sigma in (((256, 192), 6.0), ((32, 24), heatmap_sigma(24))):
        xy = torch.tensor(rng.uniform(5, np.array(size[::-1]) - 6, (2, 20, 2)), dtype=torch.float32)
        got, scores = decode(encode(xy, size, sigma))
        assert float((got - xy).abs().max()) < 0.1
        assert float(scores.min()) > 0.7


def test_refinement_beats_the_plain_maximum() -> None:
    xy = torch.rand(1, 200, 2) * 150 + 20
    maps = encode(xy, (256, 192), 6.0)
    index = maps.flatten(2).argmax(-1)
    plain = torch.stack([index % 192, index // 192], -1).float()
    refined, _ = decode(maps)
    assert float((refined - xy).norm(dim=-1).mean()) < 0.1 * float((plain - xy).norm(dim=-1).mean())


def test_flat_and_border_maps_do_not_move() -> None:
    flat = torch.zeros(1, 1, 8, 6)
    assert decode(flat)[0].abs().max() == 0
    edge = flat.clone()
    edge[0, 0, 0, 5] = 1.0
    xy, score = decode(edge)
    assert float((xy[0, 0] - torch.tensor([5.0, 0.0])).abs().max()) <= 1 and float(score) == 1


def test_a_flip_test_agrees_with_a_network_that_sees_no_side_and_mends_one_that_does() -> None:
    """A "network" that draws known places: mirrored pictures have mirrored, exchanged places."""
    words, size = keypoints(), (64, 48)
    xy = torch.rand(1, 308, 2) * torch.tensor([30.0, 40.0]) + 8
    turned = xy[:, words.flip].clone()
    turned[..., 0] = size[1] - 1 - turned[..., 0]
    images = torch.zeros(1, 3, 8, 8)
    images[..., 0] = 1  # says which way round it is

    class Network(TaskModel):
        def __init__(self, shift: float) -> None:
            torch.nn.Module.__init__(self)
            self.task, self.shift = "pose", torch.tensor([shift, 0.0])

        def forward(
            self, images: torch.Tensor, *, resting: bool = False, only: object = None
        ) -> dict[str, torch.Tensor]:
            places = xy if float(images[0, 0, 0, 0]) == 1 else turned
            return {"heatmaps": encode(places + self.shift, size, 3.0)}

    def tested(shift: float) -> torch.Tensor:
        return flip_tested(Network(shift), images)["heatmaps"]

    torch.testing.assert_close(tested(0.0), encode(xy, size, 3.0), rtol=0, atol=1e-5)
    torch.testing.assert_close(mirrored(mirrored(encode(xy, size, 3.0))), encode(xy, size, 3.0))
    # A network that always errs to the right errs to the left on the mirror image: the mean is right.
    got, _ = decode(tested(0.7))
    assert float((got - xy).abs().max()) < 0.1 < float((decode(Network(0.7)(images)["heatmaps"])[0] - xy).abs().max())
