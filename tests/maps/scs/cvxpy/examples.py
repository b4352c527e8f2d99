"""Parametrised CVXPY problems of every kind, each with values for a batch; solutions are single points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cvxpy as cp
import numpy as np


class Example(NamedTuple):
    problem: cp.Problem
    parameters: list[cp.Parameter]
    values: list[np.ndarray]
    """(B, *shape) each."""

    def set(self, i: int) -> None:
        """Give the parameters the values of instance i."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameter.value = value[i]


def lasso(rng: np.random.Generator, batch: int) -> Example:
    """A, b and c vary; a scalar nonnegative parameter."""
    A, b, weight = cp.Parameter((7, 4), name="A"), cp.Parameter(7, name="b"), cp.Parameter(nonneg=True, name="weight")
    x = cp.Variable(4)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + weight * cp.norm1(x)), [x >= -0.1])
    values = [rng.standard_normal((batch, 7, 4)), rng.standard_normal((batch, 7)), rng.uniform(0.5, 1, batch)]
    return Example(problem, [A, b, weight], values)


def portfolio(rng: np.random.Generator, batch: int) -> Example:
    """A maximization; P and c vary, A is shared; an equality; constants in the objective."""
    mean, risk, most = (
        cp.Parameter(5, name="mean"),
        cp.Parameter(nonneg=True, name="risk"),
        cp.Parameter(5, name="most"),
    )
    F, w = rng.standard_normal((5, 5)), cp.Variable(5)
    objective = mean @ w - risk * cp.quad_form(w, F @ F.T + np.eye(5)) + 3 + cp.sum(mean)
    problem = cp.Problem(cp.Maximize(objective), [cp.sum(w) == 1, w <= most, w >= -1])
    values = [rng.standard_normal((batch, 5)), rng.uniform(0.5, 1, batch), rng.uniform(0.3, 0.5, (batch, 5))]
    return Example(problem, [mean, risk, most], values)


def cone(rng: np.random.Generator, batch: int) -> Example:
    """Second-order cones along both axes."""
    c, center = cp.Parameter(4, name="c"), cp.Parameter((2, 4), name="center")
    x, t = cp.Variable(4), cp.Variable(2)
    points = cp.vstack([x, 2 * x[::-1]]) - center
    constraints = [cp.SOC(t, points, axis=1), cp.SOC(cp.Constant(1.5), x), t <= 4]
    problem = cp.Problem(cp.Minimize(c @ x + cp.sum(t)), constraints)
    return Example(problem, [c, center], [3 * rng.standard_normal((batch, 4)), rng.standard_normal((batch, 2, 4))])


def semidefinite(rng: np.random.Generator, batch: int) -> Example:
    """A symmetric parameter, a PSD variable, and a matrix inequality."""
    C, corner = cp.Parameter((3, 3), symmetric=True, name="C"), cp.Parameter(name="corner")
    X, Z = cp.Variable((3, 3), PSD=True), cp.Variable((2, 2), symmetric=True)
    constraints = [cp.trace(X) == 1, X[0, 1] == corner, Z << X[1:, 1:] + np.eye(2)]
    problem = cp.Problem(cp.Minimize(cp.trace(C @ X) - cp.trace(np.array([[2.0, 0.5], [0.5, 1.0]]) @ Z)), constraints)
    C_values = rng.standard_normal((batch, 3, 3))
    return Example(problem, [C, corner], [C_values + C_values.transpose(0, 2, 1), rng.uniform(-0.2, 0.2, batch)])


def entropy(rng: np.random.Generator, batch: int) -> Example:
    """Exponential cones, from an atom and as a constraint."""
    c, total = cp.Parameter(3, name="c"), cp.Parameter(pos=True, name="total")
    x, z = cp.Variable(3), cp.Variable(2)
    constraints = [cp.sum(x) == total, cp.ExpCone(z - 1, np.ones(2), x[:2])]
    problem = cp.Problem(cp.Maximize(cp.sum(cp.entr(x)) + c @ x + cp.sum(z)), constraints)
    return Example(problem, [c, total], [rng.standard_normal((batch, 3)), rng.uniform(1, 2, batch)])


def power(rng: np.random.Generator, batch: int) -> Example:
    """Power cones."""
    c = cp.Parameter(3, name="c", nonpos=True)
    x = cp.Variable(3)
    constraints = [cp.PowCone3D(x[0], x[1], x[2], 0.3), cp.sum(x[:2]) <= 2, x[0] <= 1.5]
    problem = cp.Problem(cp.Minimize(c @ x + cp.sum_squares(x)), constraints)
    return Example(problem, [c], [-rng.uniform(0.5, 3, (batch, 3))])


def attributes(rng: np.random.Generator, batch: int) -> Example:
    """Variables and parameters with every structure that CVXPY reduces."""
    D, S, M = (
        cp.Parameter((3, 3), diag=True, name="D"),
        cp.Parameter((3, 3), PSD=True, name="S"),
        cp.Parameter((2, 3), name="M"),
    )
    d, s, u, v = (
        cp.Variable((3, 3), diag=True),
        cp.Variable((3, 3), symmetric=True),
        cp.Variable((2, 3), nonneg=True),
        cp.Variable(3, nonpos=True),
    )
    objective = cp.sum_squares(d - D) + cp.sum_squares(s - S) + cp.sum_squares(u - M) + cp.sum_squares(v + M[0])
    problem = cp.Problem(cp.Minimize(objective), [cp.trace(d) + cp.sum(s[0]) == 1, cp.sum(u, axis=0) + v <= 0.5])
    diagonal, half = rng.standard_normal((batch, 3)), rng.standard_normal((batch, 3, 3))
    values = [diagonal[:, :, None] * np.eye(3), half @ half.transpose(0, 2, 1), rng.standard_normal((batch, 2, 3))]
    return Example(problem, [D, S, M], values)


EXAMPLES: dict[str, Callable[[np.random.Generator, int], Example]] = {
    f.__name__: f for f in (lasso, portfolio, cone, semidefinite, entropy, power, attributes)
}


def draw(name: str, batch: int = 3, seed: int = 0) -> Example:
    return EXAMPLES[name](np.random.default_rng(seed), batch)


def dense(value: Any) -> np.ndarray:
    """What CVXPY gives as a value: an array, a sparse one, a number."""
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value, dtype=float)
