"""Our backbone against the port of Sapiens2 in `transformers`: an independent implementation of the same network.

The port rotates in fp32 only. For the released bfloat16 rotation it is given tables and a rotation written here from
the specification, everything rounded to bfloat16 step by step.
"""

from __future__ import annotations

import math

import naive_encoder
import pytest
import torch
from torch import Tensor

from sapiens2.model.backbone import Backbone
from sapiens2.model.sizes import Architecture
from sapiens2.model.transformers_names import from_transformers, to_transformers

port = pytest.importorskip("transformers.models.sapiens2.modeling_sapiens2", reason="needs transformers with Sapiens2")

LAYOUTS = {
    "full attention, head 64": Architecture(dim=128, layers=4, heads=2),
    "shared keys, head 64": Architecture(dim=256, layers=18, heads=4),
    "shared keys, head 80": Architecture(dim=160, layers=17, heads=2),
    "shared keys, head 76": Architecture(dim=304, layers=17, heads=4),
}
SIZES = [(64, 48), (48, 112)]
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def ported(model: Backbone) -> torch.nn.Module:
    """The port with the same weights."""
    from transformers.models.sapiens2 import Sapiens2Config

    arch = model.architecture
    config = Sapiens2Config(
        hidden_size=arch.dim,
        intermediate_size=arch.hidden,
        num_hidden_layers=arch.layers,
        num_attention_heads=arch.heads,
        num_key_value_attention_heads=arch.heads // 2,
        num_key_value_heads_per_layer=[arch.kv_heads(i) for i in range(arch.layers)],
    )
    twin = port.Sapiens2Model(config).eval()
    twin.load_state_dict(to_transformers(model.state_dict()), strict=True)
    return twin


def bfloat16_tables(height: int, width: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """cos and sin [N, head_dim], each operation rounded to bfloat16 (specification 1.4)."""

    def b(value: float) -> float:
        return torch.tensor(value, dtype=torch.float32).to(torch.bfloat16).item()

    def coordinate(index: int, size: int) -> float:
        return b(b(2 * b(b(index + 0.5) / size)) - 1)

    quarter = head_dim // 4
    period = [b(100.0 ** b(b(2.0 * i) / (head_dim // 2))) for i in range(quarter)]
    table = []
    for row in range(height):
        for column in range(width):
            whole = [coordinate(row, height)] * quarter, [coordinate(column, width)] * quarter
            angle = [b(b(2 * math.pi * c) / p) for axis in whole for c, p in zip(axis, period)]
            table.append(angle + angle)
    angles = torch.tensor(table)
    return angles.cos().to(torch.bfloat16), angles.sin().to(torch.bfloat16)


def rotate_in_bfloat16(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, **_: object) -> tuple[Tensor, Tensor]:
    """All of q and k rounded, prefix included; v is not touched."""

    def turned(x: Tensor) -> Tensor:
        prefix, patches = x.bfloat16().split((x.shape[-2] - cos.shape[-2], cos.shape[-2]), -2)
        half = x.shape[-1] // 2
        swapped = torch.cat([-patches[..., half:], patches[..., :half]], -1)
        return torch.cat([prefix, patches * cos + swapped * sin], -2).to(x.dtype)

    return turned(q), turned(k)


def compare(model: Backbone, twin: torch.nn.Module, size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size, dtype=model.cls_token.dtype)
    taps = (0, model.architecture.layers // 2, model.architecture.layers - 2)
    with torch.no_grad():
        ours, theirs = model(images, taps=taps), twin(images, output_hidden_states=True)
    reference = theirs.last_hidden_state
    pairs = {
        "cls": (ours.cls, reference[:, 0]),
        "registers": (ours.registers, reference[:, 1:9]),
        "patches": (ours.patches.flatten(2).mT, reference[:, 9:]),
    }
    for tap, seen in zip(taps, ours.taps):
        pairs[f"block {tap}"] = (seen.flatten(2).mT, theirs.hidden_states[tap + 1][:, 9:])
    for name, (a, b) in pairs.items():
        assert ((a - b).norm() / b.norm()).item() <= TOLERANCE, name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_and_taps_equal_the_port(layout: str) -> None:
    model = Backbone(LAYOUTS[layout]).eval()
    naive_encoder.randomise(model)
    twin = ported(model)
    for size in SIZES:
        compare(model, twin, size)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_rotation_equals_the_port_with_rounded_tables(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In double precision, as two fp32 values a last bit apart may round to bfloat16 values 0.4 % apart."""
    model = Backbone(LAYOUTS[layout], rope_dtype="bfloat16").eval()
    naive_encoder.randomise(model)
    twin = ported(model).double()
    model.double()
    monkeypatch.setattr(port.Sapiens2RMSNorm, "forward", lambda norm, x: naive_encoder.rms(x, norm.weight))
    monkeypatch.setattr(port, "apply_rotary_pos_emb", rotate_in_bfloat16)
    for size in SIZES:
        tables = bfloat16_tables(size[0] // 16, size[1] // 16, model.architecture.head_dim)
        monkeypatch.setattr(twin.rope_embeddings, "forward", lambda pixels, tables=tables: tables)
        compare(model, twin, size)


def test_rotation_dtypes_differ_measurably() -> None:
    """So that the two tests above cannot both pass on one of the two rotations."""
    models = [Backbone(LAYOUTS["full attention, head 64"], rope_dtype=d).eval() for d in ("float32", "bfloat16")]
    for model in models:
        naive_encoder.randomise(model)
    images = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        a, b = (model(images).patches for model in models)
    assert 1e-4 < ((a - b).norm() / a.norm()).item() < 2e-2


def test_names_translate_both_ways() -> None:
    model = Backbone(LAYOUTS["shared keys, head 80"])
    state = model.state_dict()
    back = from_transformers(to_transformers(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    with pytest.raises(ValueError, match="no window tokenizer"):
        to_transformers(Backbone(LAYOUTS["full attention, head 64"], window_tokenizer=True).state_dict())
