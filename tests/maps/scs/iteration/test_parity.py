"""Our iterates are those of the scs 3.3.1 wheel: k evaluations against max_iters = k + 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scs
from scipy import sparse

import fixedpoint as fp
from maps.scs import SCS, ConeProgram, ConicPoint, solve
from tests.maps.scs.programs import CONES, OTHERS, data

SOLVERS = {"qdldl": 1e-9, "dense": 1e-11}
"""Linear solvers of the wheel and how closely we follow: QDLDL itself is only that accurate."""
CLOSE = {"power": 1e-6, "exponential": 1e-9}
"""Cones whose projection the wheel finds by an iteration of its own."""


def wheel(found: dict[str, Any], cones: dict[str, Any], k: int, **settings: Any) -> dict[str, Any]:
    parts = {**found, "P": sparse.triu(found["P"]).tocsc()} if "P" in found else found
    plain = {"acceleration_lookback": 0, "adaptive_scale": False, "verbose": False, "max_iters": k + 1}
    endless = {"eps_abs": 0, "eps_rel": 0, "eps_infeas": 0}
    if settings["linear_solver"] == "dense":
        settings["linear_solver"] = scs.LinearSolver.CPU_DENSE
    return scs.SCS(parts, cones, **plain, **endless, **settings).solve()


def difference(ours: Any, theirs: dict[str, Any]) -> float:
    pairs = [(np.asarray(getattr(ours, name)), theirs[name]) for name in "xys"]
    return max(float(np.abs(a - b).max() / (1 + np.abs(b).max())) for a, b in pairs)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kind", [*CONES, *OTHERS])
def test_iterates(kind: str, normalize: bool, solver: str) -> None:
    for seed in (0, 1, 2):
        found, cones = data(kind, seed)
        program = ConeProgram(**found, cones=cones)
        path = fp.unroll(SCS.of(program, normalize=normalize), program, None, 50)
        for k in (1, 2, 5, 25, 50):
            theirs = wheel(found, cones, k, normalize=normalize, linear_solver=solver)
            ours = ConicPoint(*(part[k - 1, 0] for part in path.output))
            assert difference(ours, theirs) < max(SOLVERS[solver], CLOSE.get(kind, 0.0)), (seed, k)


@pytest.mark.parametrize(
    "settings", [{"scale": 5.0, "rho_x": 1e-3, "alpha": 1.8}, {"scale": 1e-3, "alpha": 1.0}], ids=str
)
def test_iterates_with_other_settings(settings: dict[str, float]) -> None:
    for kind in CONES:
        found, cones = data(kind, 3)
        theirs = wheel(found, cones, 30, linear_solver="dense", **settings)
        program = ConeProgram(**found, cones=cones)
        ours = solve(program, None, eps_abs=0, eps_rel=0, max_evaluations=30, **settings)
        assert difference(ours, theirs) < 1e-11


def test_stored_zeros_count_in_the_scaling() -> None:
    found, cones = data("LP", 0)
    full = found["A"].toarray()
    explicit = sparse.csc_matrix(np.where(full == 0, 1.0, full))
    explicit.data[explicit.data == 1.0] = 0.0
    with_zeros = {**found, "A": explicit}
    theirs = wheel(with_zeros, cones, 20, linear_solver="dense")
    ours = solve(ConeProgram(**with_zeros, cones=cones), None, eps_abs=0, eps_rel=0, max_evaluations=20)
    assert difference(ours, theirs) < 1e-11
    dense = solve(ConeProgram(**{**found, "A": full}, cones=cones), None, eps_abs=0, eps_rel=0, max_evaluations=20)
    assert difference(dense, theirs) > 1e-3


def test_small_and_degenerate_programs() -> None:
    """n = 1, no rows with both zero and SOC blocks, blocks of sizes 0 and 1."""
    A = np.array([[1.0], [-1.0], [0.5], [2.0]])
    found = {"A": sparse.csc_matrix(A), "b": np.array([1.0, 1.0, 2.0, 1.0]), "c": np.array([0.3])}
    cones = {"l": 2, "q": [1, 0, 1]}
    theirs = wheel(found, cones, 10, linear_solver="dense")
    ours = solve(ConeProgram(**found, cones=cones), None, eps_abs=0, eps_rel=0, max_evaluations=10)
    assert difference(ours, theirs) < 1e-11
