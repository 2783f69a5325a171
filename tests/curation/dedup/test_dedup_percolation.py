"""The percolation guard: copies pass, however many; chance and chains are refused."""

from __future__ import annotations

import numpy as np
import pytest

from curation.dedup.hamming import hamming_pairs
from curation.dedup.percolation import Percolation, chance_degree, examine


def constant_weight(rng: np.random.Generator, n: int) -> np.ndarray:
    bits = np.argsort(rng.random((n, 64)), axis=1)[:, :32].astype(np.uint64)
    return np.unique(np.bitwise_or.reduce(np.uint64(1) << bits, axis=1))


def judge(codes: np.ndarray, radius: int = 4, hops: int = 32) -> Percolation:
    i, j, distance = hamming_pairs(codes, 8)
    pairs = np.stack([i, j], axis=1)
    return examine(codes, pairs, distance.astype(np.int64), radius=radius, max_chain_hops=hops)


def swapped(rng: np.random.Generator, code: int, swaps: int) -> int:
    """The code with a one and a zero exchanged, `swaps` times: distance 2 each."""
    for _ in range(swaps):
        ones = [b for b in range(64) if code >> b & 1]
        zeros = [b for b in range(64) if not code >> b & 1]
        code ^= (1 << int(rng.choice(ones))) | (1 << int(rng.choice(zeros)))
    return code


def test_the_chance_model_agrees_with_the_known_figures() -> None:
    assert chance_degree(10**9, 8, constant_weight=True) == pytest.approx(0.7, abs=0.05)
    assert chance_degree(4 * 10**9, 8, constant_weight=True) == pytest.approx(2.9, abs=0.1)
    assert chance_degree(10**9, 8, constant_weight=False) == pytest.approx(0.28, abs=0.01)


def test_the_chance_model_agrees_with_random_codes() -> None:
    """At a radius where chance neighbours are many enough to be counted."""
    rng = np.random.default_rng(0)
    codes = constant_weight(rng, 3000)
    i, j = np.triu_indices(len(codes), 1)
    observed = (np.bitwise_count(codes[i] ^ codes[j]) <= 20).sum() * 2 / len(codes)
    assert observed == pytest.approx(chance_degree(len(codes), 20, constant_weight=True), rel=0.1)


def test_unrelated_codes_and_bursts_pass() -> None:
    rng = np.random.default_rng(1)
    base = [int(c) for c in constant_weight(rng, 300)]
    bursts = [swapped(rng, code, int(rng.integers(1, 3))) for code in base for _ in range(8)]
    found = judge(np.unique(np.array(base + bursts, dtype=np.uint64)))
    assert found.refusal is None
    assert found.mean_degree[4] > 1, "many true neighbours are no reason to refuse"


def test_codes_that_collide_by_chance_are_refused() -> None:
    """Codes of 24 bits: pairs grow tenfold from one radius to the next, as chance makes them."""
    rng = np.random.default_rng(2)
    bits = np.argsort(rng.random((600, 24)), axis=1)[:, :12].astype(np.uint64)
    codes = np.unique(np.bitwise_or.reduce(np.uint64(1) << bits, axis=1))
    found = judge(codes)
    assert found.refusal is not None and "as chance makes them" in found.refusal
    assert judge(codes, radius=2).refusal is None, "few of them collide within 2 bits"


def test_a_long_chain_is_refused_and_may_be_allowed() -> None:
    rng = np.random.default_rng(3)
    chain = [int(constant_weight(rng, 1)[0])]
    while len(chain) < 160:
        step = swapped(rng, chain[-1], 1)
        if all(bin(step ^ code).count("1") > 4 for code in chain[:-2]):
            chain.append(step)
    codes = np.array(sorted(chain), dtype=np.uint64)
    found = judge(codes, radius=4)
    assert found.largest_component == 160
    assert found.chain_hops == 80, "two steps of the chain lie within radius 4"
    assert found.refusal is not None and "max_chain_hops" in found.refusal
    assert judge(codes, radius=4, hops=80).refusal is None


def test_no_codes() -> None:
    assert judge(np.zeros(0, np.uint64)).refusal is None
