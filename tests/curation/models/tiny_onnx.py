"""ONNX files of a few hundred bytes, written as protobuf messages by hand: the onnx package is no dependency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

_FLOAT = 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(_number(1, size) for size in values.shape)
    return dims + _number(2, _FLOAT) + _bytes(8, name) + _bytes(9, values.astype("<f4").tobytes())


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(_bytes(1, _number(1, d) if isinstance(d, int) else _bytes(2, d)) for d in shape)
    tensor = _number(1, _FLOAT) + _bytes(2, dims)
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))


def _node(operator: str, inputs: Sequence[str], output: str) -> bytes:
    return b"".join(_bytes(1, name) for name in inputs) + _bytes(2, output) + _bytes(4, operator)


def _model(nodes: list[bytes], constants: list[bytes], inputs: list[bytes], outputs: list[bytes]) -> bytes:
    parts = [(1, nodes), (5, constants), (11, inputs), (12, outputs)]
    graph = b"".join(_bytes(field, item) for field, items in parts for item in items) + _bytes(2, "tiny")
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _number(2, 13))


def write_scale(path: Path, factor: float) -> Path:
    """A network y = factor * x on rows [n, 3]."""
    nodes = [_node("Mul", ["x", "factor"], "y")]
    constants = [_tensor("factor", np.array([factor]))]
    path.write_bytes(_model(nodes, constants, [_value("x", ["n", 3])], [_value("y", ["n", 3])]))
    return path


def write_constant(path: Path, input_shape: Sequence[int], outputs: Sequence[np.ndarray]) -> Path:
    """A network that answers the same outputs to any input of that shape."""
    nodes = [_node("Identity", [f"c{i}"], f"o{i}") for i in range(len(outputs))]
    constants = [_tensor(f"c{i}", values) for i, values in enumerate(outputs)]
    answers = [_value(f"o{i}", values.shape) for i, values in enumerate(outputs)]
    path.write_bytes(_model(nodes, constants, [_value("x", input_shape)], answers))
    return path


def write_log(path: Path) -> Path:
    """A network y = log x on rows [n, 1]: NaN for rows below zero."""
    path.write_bytes(_model([_node("Log", ["x"], "y")], [], [_value("x", ["n", 1])], [_value("y", ["n", 1])]))
    return path
