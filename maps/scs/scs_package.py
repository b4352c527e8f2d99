"""The scs package as an outside reference, judged by the same referee."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fixedpoint.experiments.evaluation import Peer, PeerPoint
from maps.scs.certify.kkt import kkt_error
from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import entries


class ScsWheel(Peer):
    """`scs.SCS` on one instance at a time, with the given settings on top of its defaults.

    Its k-th point is what it returns after max_iters = k + 1 iterations, since iteration 0 does the work of our
    `initial`: the same path gets the same number. Every point is a fresh object's (state leaks between solves), run to
    exactly that many iterations with termination switched off. QDLDL is the linear solver: the default one differs
    between machines.

    Args:
        name: label in tables.
        settings: `scs.SCS` keyword arguments.
    """

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name, self.settings = name, settings

    def run(self, problem: ConeProgram, evaluations: Iterable[int]) -> Iterator[PeerPoint]:
        """Points of all instances at each number of evaluations, ascending."""
        data = [_instance(problem, i) for i in range(problem.batch or 1)]
        for k in evaluations:
            points, setup, total = [], 0.0, 0.0
            for one in data:
                began = time.perf_counter()
                solution, seconds = self._solve(one, problem.cones, k + 1)
                total += time.perf_counter() - began
                setup += seconds
                points.append(solution)
            x, y, s = (torch.as_tensor(np.stack(part)) for part in zip(*points, strict=True))
            yield PeerPoint(k, _error(problem, x, y, s), setup, total)

    def _solve(self, data: dict[str, Any], cones: Any, iterations: int) -> tuple[tuple[np.ndarray, ...], float]:
        """((x, y, s), seconds of setup)."""
        import scs

        endless = {"eps_abs": 0.0, "eps_rel": 0.0, "eps_infeas": 0.0, "verbose": False, "max_iters": iterations}
        cones = {key: value for key, value in cones.items() if value}
        settings = {"linear_solver": "qdldl", **endless, **self.settings}
        with redirect_stdout(io.StringIO()):  # what `verbose` does not silence
            solution = scs.SCS(data, cones, **settings).solve()
        return (solution["x"], solution["y"], solution["s"]), solution["info"]["setup_time"] / 1e3


def _instance(problem: ConeProgram, i: int) -> dict[str, Any]:
    """The data of instance i as the package wants it: sparse, P upper triangular."""
    from scipy import sparse

    def row(part: Tensor, rank: int) -> np.ndarray:
        return (part[i] if part.ndim > rank else part).detach().to(torch.float64).numpy()

    def matrix(name: str) -> Any:
        values = row(entries(getattr(problem, name), problem.patterns[name]), 1)
        pattern = problem.patterns[name]
        return sparse.csc_matrix((values, (pattern.rows, pattern.columns)), shape=pattern.shape)

    data = {"A": matrix("A"), "b": row(problem.b, 1), "c": row(problem.c, 1)}
    if problem.P is not None:
        data["P"] = sparse.triu(matrix("P"), format="csc")
    return data


def _error(problem: ConeProgram, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
    """(B,) KKT error; inf for instances where the package gave no point."""
    return kkt_error(problem, x, y, s) if problem.batch is not None else kkt_error(problem, x[0], y[0], s[0])[None]
