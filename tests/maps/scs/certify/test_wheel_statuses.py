"""A whole solve with SCS's own settings ends as the scs 3.3.1 wheel ends it, at the same evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import scs

from fixedpoint import Status
from maps.scs import solve
from tests.maps.scs.random_programs import Answer, Case, draw, in_blocks, wheel

BUDGET = 1500
VERDICTS = {Status.PRIMAL_INFEASIBLE: "infeasible", Status.DUAL_INFEASIBLE: "unbounded", Status.CONVERGED: "solved"}


def of_the_wheel(case: Case) -> Answer:
    """With QDLDL, or with its dense solver where QDLDL is too inaccurate for a verdict (some badly scaled programs)."""
    settings = {"eps_abs": 1e-4, "eps_rel": 1e-4, "adaptive_diag_scale": 0, "max_iters": BUDGET + 1}
    answer = wheel(case, linear_solver="qdldl", **settings)
    return wheel(case, linear_solver=scs.LinearSolver.CPU_DENSE, **settings) if answer.status == "unsure" else answer


@pytest.mark.parametrize("seeds", in_blocks(0, 104), ids=str)
def test_ends_like_the_wheel(seeds: range) -> None:
    same = []
    for seed in seeds:
        case = draw(seed)
        ours = solve(case.program(), "scs-anderson", adaptive_scale=True, check_interval=25, max_evaluations=BUDGET)
        theirs = of_the_wheel(case)
        assert VERDICTS.get(ours.statuses[0], "unsure") == theirs.status, seed
        same.append(theirs.status == "unsure" or int(ours.evaluations) == theirs.iterations)
    assert np.mean(same) >= 0.9, np.array(seeds)[~np.array(same)]
