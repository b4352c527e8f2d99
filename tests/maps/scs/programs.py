"""Random cone programs with a known solution, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse

from maps.cones import ProductCone
from maps.scs import ConeProgram

CONES: dict[str, dict[str, Any]] = {
    "LP": {"z": 5, "l": 25},
    "SOCP": {"z": 4, "l": 8, "q": [3, 1, 5, 5, 0, 7]},
    "QP": {"z": 6, "l": 20},
}
OTHERS: dict[str, dict[str, Any]] = {
    "SDP": {"z": 2, "l": 3, "s": [3, 4, 1, 3]},
    "box": {"l": 4, "bu": [1.0, 2.0, np.inf, 0.5], "bl": [-1.0, 0.5, -2.0, -np.inf], "q": [4]},
    "exponential": {"z": 2, "ep": 3, "ed": 2},
    "power": {"l": 3, "p": [0.3, -0.6, 0.5, 0.3]},
    "mixed": {"z": 2, "l": 3, "bu": [1.0], "bl": [-1.0], "q": [3, 4, 3], "s": [2, 3], "ep": 1, "ed": 1},
    "mixed QP": {"z": 2, "l": 3, "bu": [1.0, 3.0], "bl": [-1.0, 0.0], "q": [3, 4], "s": [3], "ep": 1, "ed": 1},
}
"""Over the cones that came later."""


def data(kind: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """({"A", "b", "c", maybe "P"} with SciPy matrices, cones); feasible, bounded, with a solution.

    Fewer variables than rows: in directions that A does not see, x is rounding divided by rho_x.
    """
    n = 20 if kind in CONES else 8
    rng = np.random.default_rng(seed)
    cones = CONES.get(kind) or OTHERS[kind]
    cone = ProductCone(cones)
    A = sparse.random(cone.dim, n, 0.3, random_state=rng, data_rvs=rng.standard_normal, format="csc")
    z = torch.as_tensor(rng.standard_normal((1, cone.dim)))
    s, y = cone.project(z)[0].numpy(), cone.project_dual(-z)[0].numpy()
    x = rng.standard_normal(n)
    found = {"A": A, "b": A @ x + s, "c": -(A.T @ y)}
    if kind.endswith("QP"):
        G = sparse.random(n, n // 2, 0.2, random_state=rng, data_rvs=rng.standard_normal, format="csc")
        found["P"] = (G @ G.T).tocsc()
        found["c"] = found["c"] - found["P"] @ x
    return found, cones


def program(kind: str, seed: int) -> ConeProgram:
    """One program of dense tensors."""
    return batch(kind, range(seed, seed + 1), single=True)


def batch(kind: str, seeds: range, single: bool = False) -> ConeProgram:
    """A batch of programs of dense tensors."""
    rows = [data(kind, seed)[0] for seed in seeds]
    dense = {name: np.stack([r[name].toarray() if name in "AP" else r[name] for r in rows]) for name in rows[0]}
    tensors = {name: torch.as_tensor(part[0] if single else part) for name, part in dense.items()}
    return ConeProgram(**tensors, cones=CONES.get(kind) or OTHERS[kind])
