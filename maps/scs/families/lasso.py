"""The Lasso at the paper's size, through CVXPY.

minimize ||X beta - Y||^2 + lambda ||beta||_1,   X 100 x 50
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch

from fixedpoint import Choice
from fixedpoint.settings import Setting
from maps.scs.families.conic import ConicFamily
from maps.scs.map import SCS
from maps.scs.program import ConeProgram


class Lasso(ConicFamily):
    """Random Lassos as in the paper: X ~ N(0, 1), 5 of 50 true coefficients, noise 0.1, lambda = 0.1 ||X'Y||_inf.

    Args:
        form: "quadratic" (the squares in P; n = m = 200) or "conic" (in second-order cones; n = 102, m = 204, the
            paper's).
        **settings: arguments of `SCS`.

    Raises:
        ValueError: an unknown form.
    """

    needs = ("cvxpy", "scs")
    tunable: ClassVar[Mapping[str, Setting]] = {"form": Choice(("quadratic", "conic")), **SCS.tunable}

    def __init__(self, form: str = "quadratic", **settings: Any) -> None:
        if form not in ("quadratic", "conic"):
            raise ValueError(f'form: expected "quadratic" or "conic", got {form!r}')
        self.form = form
        template = self._programs([_draw(torch.Generator().manual_seed(0))])
        self.map = SCS.of(template, **settings)

    def sample(self, batch: int, *, generator: torch.Generator) -> ConeProgram:
        """A batch of programs, float64; A, b and c vary."""
        return self._programs([_draw(generator) for _ in range(batch)])

    def _programs(self, draws: list[tuple[np.ndarray, np.ndarray, float]]) -> ConeProgram:
        problem, parameters, options = _template(self.form)
        compiled = []
        for draw in draws:
            for parameter, value in zip(parameters, draw, strict=True):
                parameter.value = value
            compiled.append(problem.get_problem_data("SCS", solver_opts=options)[0])
        dims = compiled[0]["dims"]
        P = compiled[0].get("P")
        return ConeProgram(
            A=np.stack([data["A"].toarray() for data in compiled]),
            b=np.stack([data["b"] for data in compiled]),
            c=np.stack([data["c"] for data in compiled]),
            P=P if P is None else P.toarray(),
            cones={"z": dims.zero, "l": dims.nonneg, "q": dims.soc},
        )


def _draw(generator: torch.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """(X, Y, lambda) of one instance."""
    X, beta, noise = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((100, 50), (50,), (100,))
    )
    beta[torch.randperm(50, generator=generator)[:45]] = 0
    Y = X @ beta + 0.1 * noise
    return X.numpy(), Y.numpy(), 0.1 * float((X.mT @ Y).abs().max())


@cache
def _template(form: str) -> tuple[Any, list[Any], dict[str, bool]]:
    """The CVXPY problem, compiled once per process, its parameters and the options of its canonicalization."""
    import cvxpy as cp

    X, Y, penalty = cp.Parameter((100, 50)), cp.Parameter(100), cp.Parameter(nonneg=True)
    beta = cp.Variable(50)
    residual = X @ beta - Y
    squares = cp.sum_squares(residual) if form == "quadratic" else cp.square(cp.norm2(residual))
    problem = cp.Problem(cp.Minimize(squares + penalty * cp.norm1(beta)))
    return problem, [X, Y, penalty], {"use_quad_obj": form == "quadratic"}
