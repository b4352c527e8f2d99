"""What the user may get wrong is named: in the problem, its parameters, and their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

from fixedpoint import Status
from maps.scs.cvxpy import CvxpyFamily
from tests.maps.scs.cvxpy.examples import draw

X = cp.Variable(2, name="x")
P, Q, N = cp.Parameter(2, name="p"), cp.Parameter(2, name="q"), cp.Parameter(nonneg=True, name="n")
E = cp.Parameter(0, name="e")
COMPLEX, WHOLE = cp.Variable(2, complex=True, name="z"), cp.Variable(2, integer=True, name="k")

# -- problems


@pytest.mark.parametrize(
    ("problem", "parameters", "named"),
    [
        (cp.Problem(cp.Minimize(cp.sum(X)), [P <= X, Q <= X]), [P], ["q missing", "p, q"]),
        (cp.Problem(cp.Minimize(cp.sum(X)), [P <= X]), [P, Q], ["q not in the problem", "are p"]),
        (cp.Problem(cp.Minimize(cp.sum(X)), [P <= X]), [P, P], ["p given twice"]),
        (cp.Problem(cp.Minimize(cp.sum(X)), [X >= 1]), [], ["with parameters"]),
        (cp.Problem(cp.Minimize(cp.sum(X)), [P <= X, E <= 1]), [P, E], ["at least one entry", "e has shape (0,)"]),
        (cp.Problem(cp.Minimize(cp.sum(P))), [P], ["with variables"]),
        (cp.Problem(cp.Minimize(cp.norm(COMPLEX - P))), [P], ["real", "z may be complex"]),
        (cp.Problem(cp.Minimize(cp.sum(WHOLE)), [WHOLE >= P]), [P], ["continuous", "k must be whole"]),
        (cp.Problem(cp.Minimize(cp.sum(cp.sqrt(X)) + P @ X)), [P], ["convex", "DCP", "(x, 0.5)"]),
        (
            cp.Problem(cp.Minimize(cp.sum(X)), [cp.multiply(P, Q) @ X <= 1, X >= N]),
            [P, Q, N],
            ["DPP", "not so are: p ", " q; ", "parameter of its own", "is_dcp(dpp=True)"],
        ),
        (cp.Problem(cp.Minimize(cp.square(N) * cp.sum_squares(X)), [X >= P]), [N, P], ["DPP", "(n, 2"]),
        (cp.Problem(cp.Minimize(cp.exp(N) * X[0]), [X >= P]), [N, P], ["DPP", "exp(n)"]),
    ],
)
def test_of_a_problem(problem: cp.Problem, parameters: list[cp.Parameter], named: list[str]) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is looked at below
        CvxpyFamily(problem, parameters)
    for words in named:
        assert words in str(raised.value)
    assert "x >= " not in str(raised.value), "what is right is not named"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: CvxpyFamily("problem", [P]), "problem: expected a cvxpy.Problem, got 'problem'"),
        (lambda p: CvxpyFamily(p, P), "parameters: expected a list"),
        (lambda p: CvxpyFamily(p, [P, X]), r"parameters: expected a list of cvxpy.Parameter, got Variable"),
        (lambda p: CvxpyFamily(p, [P], 3), "sampler: expected a function"),
        (lambda p: CvxpyFamily(p, [P], quadratic=1), "quadratic: expected True or False"),
        (lambda p: CvxpyFamily(p, [P], sise=1), r"CvxpyFamily: unknown setting sise; known are .*alpha, .*scale"),
        (lambda p: CvxpyFamily(p, [P], eps_abs=1e-3), r"CvxpyFamily: unknown setting eps_abs; .*tolerances .*`solve`"),
        (lambda p: CvxpyFamily(p, [P], n=3), "CvxpyFamily: unknown setting n; known are"),
        (lambda p: CvxpyFamily(p, [P]).solve([[1.0, 2.0]], epsabs=1), "solve: unknown epsabs; known are .*eps_abs"),
    ],
)
def test_of_kinds(make: Callable[[cp.Problem], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make(cp.Problem(cp.Minimize(cp.sum_squares(X - P))))


# -- values


def family() -> CvxpyFamily:
    return CvxpyFamily(cp.Problem(cp.Minimize(cp.sum_squares(X - P) + N * cp.norm1(X))), [P, N])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([np.ones((3, 2))], r"values: expected a list of 2 tensors in the order \[p, n\], got 1"),
        (np.ones((2, 2)), r"values: expected a list of 2 tensors .* got ndarray"),
        (None, r"values: expected a list of 2 tensors in the order \[p, n\], got None"),
        ("pn", r"values: expected a list of 2 tensors in the order \[p, n\], got str"),
        ({"p": 1, "n": 2}, r"values: expected a list of 2 tensors in the order \[p, n\], got dict"),
        ([np.ones((100, 2)), -np.ones(100)], r"n: .* in instance\(s\) \[0, 1, .*, 7\] \(100 in all\)$"),
        ([np.ones((3, 4)), np.ones(3)], r"p: expected shape \(2,\), or \(B, 2\) for a batch, got \(3, 4\)"),
        ([np.ones((3, 2)), np.ones((3, 1))], r"n: expected shape \(\), or \(B,\) for a batch, got \(3, 1\)"),
        ([np.ones((3, 2)), np.ones(4)], r"values: batch sizes differ: p: 3, n: 4"),
        ([np.ones((0, 2)), np.ones(0)], r"p: expected at least one instance"),
        (
            [np.ones((2, 2)), [1, np.nan]],
            r"n: expected finite numbers, got NaN or infinity in instance\(s\) \[1\] \(on_inv",
        ),
        ([[[1, 2], [np.inf, 0]], [1, 1]], r"p: expected finite numbers, got NaN or infinity in instance\(s\) \[1\]"),
        ([[np.nan, 1], 1], r"p: expected finite numbers, got NaN or infinity$"),
        ([np.ones((3, 2)), [1.0, -1, -2]], r"n: expected a nonneg value in instance\(s\) \[1, 2\]"),
        ([np.ones((3, 2)), -1], r"n: expected a nonneg value \(shared by the batch\)$"),
        ([[[1, np.nan], [1, 1]], [1, -1]], r"p: .*\[0\]; n: .*\[1\]$"),
    ],
)
def test_of_values(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        family().solve(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([torch.ones(3, 2), torch.ones(3, dtype=torch.float64)], r"one dtype, got p: torch.float32, n: torch.float64"),
        ([torch.ones(3, 2, dtype=torch.complex128), 1], r"p: expected float32, float64 or whole numbers, got"),
        ([torch.ones(3, 2, dtype=torch.float16), 1], r"p: expected float32, float64 or whole numbers, got"),
        ([["one", "two"], 1], r"p: expected numbers"),
    ],
)
def test_of_dtypes(values: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        family().program(values)


def parameter(**attributes: Any) -> CvxpyFamily:
    y, p = cp.Variable((2, 2), name="y"), cp.Parameter((2, 2), name="p", **attributes)
    return CvxpyFamily(cp.Problem(cp.Minimize(cp.sum_squares(y - p))), [p])


GOOD = [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("attributes", "good", "bad", "message"),
    [
        ({"nonneg": True}, GOOD, [[1, 0], [-1e-3, 0]], "nonneg"),
        ({"pos": True}, [[1, 1], [2, 2]], [[1, 1], [-1, 1]], "pos"),
        ({"nonpos": True}, [[-1, 0], [0, 0]], GOOD, "nonpos"),
        ({"neg": True}, [[-1, -1], [-2, -1]], GOOD, "neg"),
        ({"symmetric": True}, [[1, 2], [2, -1]], [[1, 2], [2.1, -1]], "symmetric"),
        ({"PSD": True}, [[1, 1], [1, 1]], [[1, 2], [2, 1]], "PSD"),
        ({"PSD": True}, [[1, 1], [1, 1]], [[1, 0.1], [0, 1]], "symmetric"),
        ({"NSD": True}, [[-1, 1], [1, -1]], GOOD, "NSD"),
        ({"diag": True}, GOOD, [[1, 0], [1e-3, 1]], "diag"),
        ({"integer": True}, [[3, -4], [0, 1]], [[3, 0.5], [0, 1]], "an integer value"),
        ({"boolean": True}, GOOD, [[2, 0], [0, 1]], "boolean"),
        ({"bounds": [-1, 2]}, GOOD, [[1, 0], [0, 2.5]], "within its bounds"),
        ({"sparsity": ([0, 1], [0, 1])}, GOOD, [[1, 2], [0, 1]], "sparsity"),
    ],
)
def test_of_an_attribute(attributes: dict[str, Any], good: Any, bad: Any, message: str) -> None:
    made = parameter(**attributes)
    assert np.allclose(made.solve([[good, good]]).variables[0], good, atol=1e-4)
    with pytest.raises(ValueError, match=rf"p: expected .*{message}.* in instance\(s\) \[1\] \(on_invalid"):
        made.solve([[good, bad, good]])
    marked = made.solve([[good, bad, good]], on_invalid="mark")
    assert marked.statuses == [Status.CONVERGED, Status.INVALID, Status.CONVERGED]
    assert marked.variables[0][1].isnan().all()
    assert marked.value[1].isnan()
    assert np.allclose(marked.variables[0][[0, 2]], good, atol=1e-4)


def test_nan_is_marked_wherever_the_parameter_is() -> None:
    for name in ("lasso", "portfolio", "cone"):
        example = draw(name)
        made = CvxpyFamily(example.problem, example.parameters)
        clean = made.solve(example.values)
        for k in range(len(example.values)):
            values = [value.copy() for value in example.values]
            values[k][1] = np.nan
            marked = made.solve(values, on_invalid="mark")
            assert marked.statuses == [Status.CONVERGED, Status.INVALID, Status.CONVERGED]
            assert torch.equal(marked.variables[0][[0, 2]], clean.variables[0][[0, 2]]), "neighbours are untouched"


def test_a_start_that_is_no_solution() -> None:
    solution = family().solve([np.ones((3, 2)), 1])
    for start in (solution.variables, [solution.variables[0]] * 3, 3):
        with pytest.raises((TypeError, ValueError), match=r"warm_start: .*the solution object .*`family.solve`"):
            family().solve([np.ones((3, 2)), 1], warm_start=start)  # type: ignore[arg-type]
    assert family().solve([np.ones((3, 2)), 1], warm_start=solution).solution.warm_started.all()


def test_a_gradient_that_would_be_dropped_is_refused() -> None:
    p = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match='gradient=None would drop; choose "implicit"'):
        family().solve([p, 1])
    with pytest.raises(ValueError, match="on_invalid: expected"):
        family().solve([p, 1], on_invalid="skip")  # type: ignore[arg-type]
