"""The Lasso, by default at the paper's size, through CVXPY.

minimize ||X beta - Y||^2 + lambda ||beta||_1,   X 100 x 50
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from fixedpoint import Choice
from fixedpoint.learning.learned import require_counts
from fixedpoint.search_space import SearchSpace
from maps.scs.family import PAPER, ConicFamily
from maps.scs.iteration.map import SCS
from maps.scs.problem.program import ConeProgram

if TYPE_CHECKING:
    from maps.scs.cvxpy.canonical import Canonical


class Lasso(ConicFamily):
    """Random Lassos as in the paper: X ~ N(0, 1), 5 of 50 true coefficients, noise 0.1, lambda = 0.1 ||X'Y||_inf.

    The setting "paper" is the neural-acceleration paper's: conic form in the metric of SCS 2.

    Args:
        form: "quadratic" (the squares in P; n = m = 200) or "conic" (in second-order cones; n = 102, m = 204, the
            paper's).
        noise: standard deviation of the noise.
        nonzeros: true coefficients that are not zero, 0 to `variables`.
        size: standard deviation of these.
        variables: coefficients, at least 1.
        samples: rows of X, at least 1.
        **settings: arguments of `SCS`.

    Raises:
        ValueError: an unknown form, a number of coefficients or samples out of range, a negative noise or size.
    """

    needs = ("cvxpy", "scs")
    tunable: ClassVar[Mapping[str, SearchSpace]] = {"form": Choice(("quadratic", "conic")), **SCS.tunable}
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"form": "conic", **PAPER}}
    shifts: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "noise x2": {"noise": 0.2},
        "nonzeros x2": {"nonzeros": 10},
        "size x2": {"size": 2.0},
    }

    def __init__(
        self,
        form: str = "quadratic",
        noise: float = 0.1,
        nonzeros: int = 5,
        size: float = 1.0,
        variables: int = 50,
        samples: int = 100,
        **settings: Any,
    ) -> None:
        if form not in ("quadratic", "conic"):
            raise ValueError(f'form: expected "quadratic" or "conic", got {form!r}')
        require_counts(variables=variables, samples=samples)
        if isinstance(nonzeros, bool) or not isinstance(nonzeros, int) or not 0 <= nonzeros <= variables:
            raise ValueError(f"nonzeros: expected a whole number from 0 to {variables}, got {nonzeros!r}")
        if not noise >= 0 or not size >= 0:
            raise ValueError(f"noise, size: expected numbers >= 0, got {noise!r}, {size!r}")
        self.form, self.noise, self.nonzeros, self.size = form, noise, nonzeros, size
        self.variables, self.samples = variables, samples
        canonical = _template(form, variables, samples)
        self.map = SCS(canonical.n, canonical.cones, features=canonical.features, **settings)

    def sample(self, batch: int, *, generator: torch.Generator) -> ConeProgram:
        """A batch of programs, float64; A, b and c vary."""
        draws = [self._draw(generator) for _ in range(batch)]
        values = [torch.from_numpy(np.stack(parts)) for parts in zip(*draws, strict=True)]
        return _template(self.form, self.variables, self.samples).program([part.reshape(batch, -1) for part in values])

    def _draw(self, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray, float]:
        """(X, Y, lambda) of one instance."""
        n, m = self.variables, self.samples
        X, beta, noise = (
            torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((m, n), (n,), (m,))
        )
        beta[torch.randperm(n, generator=generator)[: n - self.nonzeros]] = 0
        Y = X @ (self.size * beta) + self.noise * noise
        return X.numpy(), Y.numpy(), 0.1 * float((X.mT @ Y).abs().max())


@cache
def _template(form: str, variables: int, samples: int) -> Canonical:
    """The CVXPY problem as a function of (X, Y, lambda), compiled once per process."""
    import cvxpy as cp

    from maps.scs.cvxpy.canonical import Canonical

    X, Y, penalty = cp.Parameter((samples, variables)), cp.Parameter(samples), cp.Parameter(nonneg=True)
    beta = cp.Variable(variables)
    residual = X @ beta - Y
    squares = cp.sum_squares(residual) if form == "quadratic" else cp.square(cp.norm2(residual))
    problem = cp.Problem(cp.Minimize(squares + penalty * cp.norm1(beta)))
    return Canonical.of(problem, [X, Y, penalty], quadratic=form == "quadratic")
