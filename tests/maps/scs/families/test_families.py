"""The conic families have the sizes and distributions they claim."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso as Reference

import fixedpoint as fp
from maps.scs import solve
from maps.scs.families import diabetes
from maps.scs.families.lasso import Lasso

SIZES = {"conic": (102, 204, 5204, {"l": 100, "q": [101, 3]}), "quadratic": (200, 200, 5300, {"z": 100, "l": 100})}


@pytest.mark.parametrize("form", SIZES)
def test_lasso_has_the_paper_s_sizes(form: str) -> None:
    programs = Lasso(form).sample(2, generator=torch.Generator().manual_seed(0))
    n, m, entries, cones = SIZES[form]
    assert (programs.n, programs.m) == (n, m)
    assert int((programs.A.to_dense()[0] != 0).sum()) == entries
    assert {key: value for key, value in programs.cones.items() if value} == cones
    assert (programs.P is not None) == (form == "quadratic")


@pytest.mark.parametrize("form", SIZES)
def test_lasso_is_the_lasso(form: str) -> None:
    """Both forms give scikit-learn's coefficients."""
    X, Y, penalty = Lasso(form)._draw(torch.Generator().manual_seed(7))
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


def test_shifted_lassos_are_what_they_say() -> None:
    """Y = X beta + noise: beta and noise are read off by least squares."""
    for options, nonzeros, size, noise in (
        ({}, 5, 1.0, 0.1),
        ({"noise": 0.2}, 5, 1.0, 0.2),
        ({"nonzeros": 10}, 10, 1.0, 0.1),
        ({"size": 2.0}, 5, 2.0, 0.1),
    ):
        family = Lasso(**options)
        generator = torch.Generator().manual_seed(0)
        draws = [family._draw(generator) for _ in range(30)]
        found = [np.linalg.lstsq(X, Y, rcond=None)[0] for X, Y, _ in draws]
        true = np.stack([np.where(np.abs(beta) > 6 * noise / 10, beta, 0) for beta in found])
        assert (true != 0).sum(1).mean() == pytest.approx(nonzeros, rel=0.12), "all but the smallest"
        assert np.sqrt((true**2).sum() / (30 * nonzeros)) == pytest.approx(size, rel=0.2)
        left = np.concatenate([Y - X @ beta for (X, Y, _), beta in zip(draws, found, strict=True)])
        assert left.std() == pytest.approx(noise * np.sqrt(0.5), rel=0.1), "of 100 samples, 50 are fitted away"
        X, Y, penalty = draws[0]
        assert penalty == pytest.approx(0.1 * np.abs(X.T @ Y).max())


def test_shifted_diabetes_lassos_are_what_they_say() -> None:
    def drawn(**options: object) -> tuple[torch.Tensor, torch.Tensor]:
        family = diabetes.DiabetesLasso(**options)  # type: ignore[arg-type]
        c = family.sample(200, generator=torch.Generator().manual_seed(0)).c
        return c[:, :10], c[:, 10] / c[:, :10].abs().amax(1)

    slope, share = drawn()
    assert 0.003 <= share.min() < 0.0035
    assert 0.45 < share.max() <= 0.5
    assert torch.allclose(drawn(size=2.0)[0], 2 * slope)
    assert torch.allclose(drawn(penalties=[0.006, 1.0])[1], 2 * share)
    noisy = drawn(noise=1.0)[0]
    # X'w for normal w and columns of length 1: a standard deviation of 1, times 2
    assert float((noisy - slope).std()) == pytest.approx(2.0, rel=0.1)
    assert torch.allclose(drawn(noise=0.0)[0], slope)
