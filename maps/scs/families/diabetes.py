"""Lassos on real data: the diabetes study of Efron, Hastie, Johnstone & Tibshirani (2004), bundled with scikit-learn.

    minimize ||X beta - y||^2 + lambda ||beta||_1

over bootstrap resamples of the 442 patients and a range of penalties, as in choosing lambda with error bars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from maps.scs.family import ConicFamily
from maps.scs.iteration.map import SCS
from maps.scs.problem.program import ConeProgram


class DiabetesLasso(ConicFamily):
    """Bootstrapped diabetes Lassos as quadratic programs in (beta, t): P = 2 X'X, -t <= beta <= t; n = m = 20.

    An instance draws 442 patients with replacement and lambda between 0.003 and 0.5 of the smallest that makes
    beta = 0, log-uniformly. The response is centred and scaled to unit standard deviation.

    Args:
        noise: standard deviation of noise added to the response.
        size: factor on the response, and so on the coefficients.
        penalties: least and largest share of the penalty that makes beta = 0.
        **settings: arguments of `SCS`.

    Raises:
        ValueError: a negative noise or size, penalties that are not 0 < least <= largest.
    """

    needs = ("sklearn", "scs")
    form = "quadratic"
    shifts: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "noise": {"noise": 1.0},
        "penalties x2": {"penalties": [0.006, 1.0]},
        "size x2": {"size": 2.0},
    }

    def __init__(
        self,
        noise: float = 0.0,
        size: float = 1.0,
        penalties: Sequence[float] = (0.003, 0.5),
        **settings: Any,
    ) -> None:
        if not noise >= 0 or not size >= 0:
            raise ValueError(f"noise, size: expected numbers >= 0, got {noise!r}, {size!r}")
        if len(penalties) != 2 or not 0 < penalties[0] <= penalties[1]:
            raise ValueError(f"penalties: expected 0 < least <= largest, got {penalties!r}")
        self.noise, self.size, self.penalties = noise, size, penalties
        self.map = SCS(20, {"l": 20}, features=140, **settings)  # b, c and the stored block of P

    def sample(self, batch: int, *, generator: torch.Generator) -> ConeProgram:
        """A batch of programs, float64; P and c vary, A and b are shared."""
        X, y = _data()
        rows = torch.randint(len(y), (batch, len(y)), generator=generator)
        exponent = torch.rand(batch, 1, generator=generator, dtype=torch.float64)
        response = self.size * y[rows]
        if self.noise > 0:
            response = response + self.noise * torch.randn(response.shape, generator=generator, dtype=torch.float64)
        gram = X[rows].mT @ X[rows]
        slope = (X[rows].mT @ response[:, :, None])[:, :, 0]
        least, largest = self.penalties
        share = least * (largest / least) ** exponent
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
