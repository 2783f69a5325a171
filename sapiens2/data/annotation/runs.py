"""Masks as run lengths: COCO's counts and their text, CVAT's rows of a box, Label Studio's packed bits.

COCO: column by column, runs of 0 and 1 in turn, 0 first; as text each number is a difference to the last but one in
6-bit letters [pycocotools, maskApi.c]. CVAT: the same row by row inside a box. Label Studio: the rle-pack of thi.ng
over the bytes of an RGBA picture, of which the alpha channel is the mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray
WORD_BITS = 8
RUN_BITS = (3, 4, 8, 16)  # a run of up to 2 ** bits values is told by its length - 1


def to_runs(flat: Array) -> list[int]:
    """Lengths of the runs of a bool vector, zeros first."""
    flat = np.asarray(flat, bool)
    if not len(flat):
        return []
    ends = np.flatnonzero(np.diff(flat.astype(np.int8)))
    runs: list[int] = np.diff(np.concatenate([[-1], ends, [len(flat) - 1]])).tolist()
    return [0, *runs] if flat[0] else runs


def from_runs(runs: Sequence[int], count: int) -> Array:
    """The bool vector of `count` values; ValueError when the runs are of another length."""
    lengths = np.asarray(runs, np.int64)
    if (lengths < 0).any() or lengths.sum() != count:
        raise ValueError(f"its runs add up to {int(lengths.sum())} pixels, not {count}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def coco_runs(mask: Array) -> list[int]:
    """COCO's uncompressed counts of a mask [H, W]."""
    return to_runs(mask.ravel(order="F"))


def from_coco(counts: Sequence[int] | str, size: tuple[int, int]) -> Array:
    """A mask bool [H, W] from COCO's counts, a list or its compressed text; ValueError when they are wrong."""
    runs = coco_text(counts) if isinstance(counts, str) else counts
    return from_runs(runs, size[0] * size[1]).reshape(size, order="F")


def coco_text(text: str) -> list[int]:
    """The counts behind COCO's compressed text; ValueError for text that ends within a number."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64:
            raise ValueError(f"its counts have the letter {letter!r}")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its counts end within a number")
    return counts


def pack_bits(mask: Array) -> list[int]:
    """Label Studio's bytes of a mask [H, W]: every value of the RGBA picture is 255 inside, 0 outside."""
    runs = to_runs(mask.ravel())
    bits = [f"{4 * mask.size:032b}{WORD_BITS - 1:05b}", *(f"{size - 1:04b}" for size in RUN_BITS)]
    longest = 1 << RUN_BITS[-1]
    for k, run in enumerate(runs):
        left, value = 4 * run, 255 * (k % 2)
        while left:
            length = min(left, longest)
            which = next(i for i, size in enumerate(RUN_BITS) if length <= 1 << size)
            bits.append(f"1{which:02b}{length - 1:0{RUN_BITS[which]}b}{value:08b}")
            left -= length
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def unpack_bits(data: Sequence[int], size: tuple[int, int]) -> Array:
    """A mask bool [H, W], where alpha is not 0, from Label Studio's bytes; ValueError when they are wrong."""
    try:
        text = "".join(map("{:08b}".format, bytes(data)))
    except (TypeError, ValueError) as error:
        raise ValueError("its rle is no list of bytes") from error
    return _Bits(text).values(4 * size[0] * size[1]).reshape(*size, 4)[..., 3] > 0


class _Bits:
    """A text of 0 and 1, read from the front."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def read(self, count: int) -> int:
        if self.at + count > len(self.text):
            raise ValueError("its rle ends too early")
        self.at += count
        return int(self.text[self.at - count : self.at], 2)

    def values(self, expected: int) -> Array:
        """uint8 vector of all values."""
        count, word = self.read(32), self.read(5) + 1
        sizes = [self.read(4) + 1 for _ in range(4)]
        if (count, word) != (expected, WORD_BITS):
            raise ValueError(f"its rle holds {count} values of {word} bits, not {expected} of {WORD_BITS}")
        out, at = np.zeros(count, np.uint8), 0
        while at < count:
            repeated = self.read(1)
            length = min(self.read(sizes[self.read(2)]) + 1, count - at)
            out[at : at + length] = self.read(word) if repeated else [self.read(word) for _ in range(length)]
            at += length
        return out
