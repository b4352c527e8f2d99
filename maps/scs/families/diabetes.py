"""Lassos on real data: the diabetes study of Efron, Hastie, Johnstone & Tibshirani (2004), bundled with scikit-learn.

    minimize ||X beta - y||^2 + lambda ||beta||_1

over bootstrap resamples of the 442 patients and a range of penalties, as in choosing lambda with error bars.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from maps.scs.families.conic import ConicFamily
from maps.scs.map import SCS
from maps.scs.program import ConeProgram


class DiabetesLasso(ConicFamily):
    """Bootstrapped diabetes Lassos as quadratic programs in (beta, t): P = 2 X'X, -t <= beta <= t; n = m = 20.

    An instance draws 442 patients with replacement and lambda between 0.003 and 0.5 of the smallest that makes
    beta = 0, log-uniformly. The response is centred and scaled to unit standard deviation.

    Args:
        **settings: arguments of `SCS`.
    """

    needs = ("sklearn", "scs")
    form = "quadratic"

    def __init__(self, **settings: Any) -> None:
        self.map = SCS(20, {"l": 20}, **settings)

    def sample(self, batch: int, *, generator: torch.Generator) -> ConeProgram:
        """A batch of programs, float64; P and c vary, A and b are shared."""
        X, y = _data()
        rows = torch.randint(len(y), (batch, len(y)), generator=generator)
        gram = X[rows].mT @ X[rows]
        slope = (X[rows].mT @ y[rows][:, :, None])[:, :, 0]
        exponent = torch.rand(batch, 1, generator=generator, dtype=torch.float64)
        share = 0.003 * (0.5 / 0.003) ** exponent
        penalty = share * 2 * slope.abs().amax(1, keepdim=True)
        zero, one = torch.zeros_like(gram), torch.eye(10, dtype=torch.float64)
        P = torch.cat([torch.cat([2 * gram, zero], 2), torch.cat([zero, zero], 2)], 1)
        A = torch.cat([torch.cat([one, -one], 1), torch.cat([-one, -one], 1)], 0)
        c = torch.cat([-2 * slope, penalty.expand(batch, 10)], 1)
        return ConeProgram(A=A, b=torch.zeros(20, dtype=torch.float64), c=c, P=P, cones={"l": 20})


@cache
def _data() -> tuple[Tensor, Tensor]:
    """(X (442, 10) with columns of length 1, y (442,) standardised)."""
    from sklearn.datasets import load_diabetes

    X, y = (torch.as_tensor(part, dtype=torch.float64) for part in load_diabetes(return_X_y=True))
    return X, (y - y.mean()) / y.std()
