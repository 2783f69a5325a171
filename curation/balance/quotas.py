"""How many rows each attribute cell may give so that caps and floors on several axes hold at once.

A cell is one combination of bins. Its quota is found by an integer programme over the cells, so the number of rows does
not matter: caps are never broken, the target is met exactly if any selection meets it, floors are met as far as the
supply and the caps allow, and among all such quotas the one nearest to the even allocation is taken. Nearness has
falling returns, so a cap takes a little from many cells rather than all from one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_STEPS = 4  # pieces of the convex cost on either side of the even allocation
_SHORT_OF_TARGET = 1000.0  # per row; beside costs of -4..4 a row
_SHORT_OF_FLOOR = 100.0
_IN_PART = 100.0  # times both where rows count in part: a move may then bring a floor nearer by a hundredth of a row
_NODES = 2000  # of the branch-and-bound tree: a bound that, unlike a time limit, is the same on every machine


@dataclass(frozen=True)
class Limit:
    """At most (cap) or at least (floor) `bound` rows; of a cell, `weight` of each row counts."""

    name: str  # axis=bin
    kind: str  # cap or floor
    weight: NDArray[np.float64]  # [C], 0..1: 1 and 0 where a cell is of the bin or not
    bound: int

    def rows(self, quota: Ints) -> float:
        """How many of so many rows of each cell count."""
        return float(np.round(quota @ self.weight, 6))

    def full(self, rows: float) -> bool:
        """Whether a cap has no place for one more row that counts most."""
        return rows > self.bound - self.weight.max(initial=0.0)


def solve(supply: Ints, wanted: Ints, limits: list[Limit], target: int) -> Ints:
    """Quota of each cell, int64 [C], 0 <= quota <= supply, caps held, the sum at most `target`.

    supply: rows per cell; wanted: rows per cell in the even allocation. Raises RuntimeError if the solver finds no
    quotas at all, which the caps alone cannot cause: zero rows break none.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix, hstack, identity

    widths, costs = _pieces(supply, wanted)
    cells, pieces = widths.shape
    floors = [limit for limit in limits if limit.kind == "floor"]
    caps = [limit for limit in limits if limit.kind == "cap"]
    slack = 1 + len(floors)  # rows missing to the target, and to each floor
    per_cell = np.stack([np.ones(cells), *(limit.weight for limit in [*floors, *caps])])
    total = csr_matrix(np.repeat(per_cell, pieces, axis=1))
    missing = csr_matrix(identity(len(per_cell)).toarray()[:, :slack])
    lower = np.array([target, *(f.bound for f in floors), *(0 for _ in caps)], dtype=float)
    upper = np.array([target, *(np.inf for _ in floors), *(c.bound for c in caps)], dtype=float)
    dear = 1.0 if all(map(_whole, floors)) else _IN_PART
    shortfalls = dear * np.array([_SHORT_OF_TARGET, *(_SHORT_OF_FLOOR for _ in floors)])
    found = milp(
        np.concatenate([costs.ravel(), shortfalls]),
        integrality=np.array([*np.ones(cells * pieces + 1), *(_whole(floor) for floor in floors)]),
        bounds=Bounds(0, np.concatenate([widths.ravel(), np.full(slack, np.inf)])),
        constraints=LinearConstraint(hstack([total, missing]).tocsr(), lower, upper),
        options={"node_limit": _NODES, "mip_rel_gap": 1e-6},
    )
    if found.x is None:
        raise RuntimeError(f"no quotas were found for {cells} cells and {len(limits)} limits: {found.message}")
    return np.round(found.x[: cells * pieces]).astype(np.int64).reshape(cells, pieces).sum(axis=1)


def _whole(floor: Limit) -> bool:
    """Whether what is missing to a floor is a whole number of rows, as it is where rows count whole or not at all."""
    return bool((floor.weight == np.round(floor.weight)).all())


def _pieces(supply: Ints, wanted: Ints) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(widths, costs) [C, 2 x steps] of a convex cost per cell: falling up to `wanted`, rising beyond it."""
    below, above = _split(wanted), _split(supply - wanted)
    widths = np.concatenate([below, above], axis=1).astype(np.float64)
    slope = np.concatenate([np.arange(-_STEPS, 0), np.arange(1, _STEPS + 1)]).astype(np.float64)
    return widths, np.broadcast_to(slope, widths.shape)


def _split(amount: Ints) -> Ints:
    """Each amount in `steps` whole parts that differ by at most one: int64 [C, steps]."""
    edges = (amount[:, None] * np.arange(_STEPS + 1)) // _STEPS
    return np.diff(edges, axis=1)
