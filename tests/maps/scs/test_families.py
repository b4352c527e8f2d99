"""The conic families have the sizes and distributions they claim."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso as Reference

import fixedpoint as fp
from maps.scs import solve
from maps.scs.families import diabetes
from maps.scs.families.lasso import Lasso, _draw

SIZES = {"conic": (102, 204, 5204, {"l": 100, "q": [101, 3]}), "quadratic": (200, 200, 5300, {"z": 100, "l": 100})}


@pytest.mark.parametrize("form", SIZES)
def test_lasso_has_the_paper_s_sizes(form: str) -> None:
    programs = Lasso(form).sample(2, generator=torch.Generator().manual_seed(0))
    n, m, entries, cones = SIZES[form]
    assert (programs.n, programs.m) == (n, m)
    assert int((programs.A[0] != 0).sum()) == entries
    assert {key: value for key, value in programs.cones.items() if value} == cones
    assert (programs.P is not None) == (form == "quadratic")


@pytest.mark.parametrize("form", SIZES)
def test_lasso_is_the_lasso(form: str) -> None:
    """Both forms give scikit-learn's coefficients."""
    X, Y, penalty = _draw(torch.Generator().manual_seed(7))
    reference = Reference(alpha=penalty / 200, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(X, Y)
    programs = Lasso(form).sample(1, generator=torch.Generator().manual_seed(7))
    solution = solve(programs, "anderson-2", eps_abs=1e-8, eps_rel=1e-8, scale=5.0)
    assert solution.statuses == [fp.Status.CONVERGED]
    x = solution.x[0].numpy()
    windows = [x[i : i + 50] for i in range(len(x) - 49)]  # wherever CVXPY puts the coefficients
    assert min(np.abs(window - reference.coef_).max() for window in windows) < 1e-5


def test_diabetes_lasso_is_the_lasso() -> None:
    family = diabetes.DiabetesLasso()
    programs = family.sample(3, generator=torch.Generator().manual_seed(2))
    assert (programs.n, programs.m) == (20, 20)
    solution = solve(programs, "anderson-2", eps_abs=1e-9, eps_rel=0)
    X, y = diabetes._data()
    rows = torch.randint(442, (3, 442), generator=torch.Generator().manual_seed(2))
    for i in range(3):
        penalty = float(programs.c[i, 10])
        reference = Reference(alpha=penalty / (2 * 442), fit_intercept=False, tol=1e-12, max_iter=100_000)
        reference.fit(X[rows[i]].numpy(), y[rows[i]].numpy())
        assert np.allclose(solution.x[i, :10].numpy(), reference.coef_, atol=1e-5)


def test_unknown_form() -> None:
    with pytest.raises(ValueError, match="form"):
        Lasso("dual")
