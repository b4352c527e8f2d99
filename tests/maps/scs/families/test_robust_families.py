"""Robust Kalman filtering and robust PCA: the paper's sizes, CVXPY's own data, reference optima, what is drawn."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch

import fixedpoint as fp
from maps.scs import ConeProgram, kkt_error
from maps.scs.certify.kkt import kkt_terms
from maps.scs.families.robust_kalman import RobustKalman
from maps.scs.families.robust_pca import RobustPCA, as_nuclear
from maps.scs.problem.sparse_matrix import SparseMatrix, dense

SIZES = {
    ("robust-kalman", "conic"): (655, 852, 1652, {"z": 350, "l": 100, "q": [102] + [3] * 100}),
    ("robust-kalman", "quadratic"): (604, 600, 1400, {"z": 350, "l": 100, "q": [3] * 50}),
    ("robust-pca", "conic"): (741, 832, 1191, {"z": 90, "l": 181, "s": [33]}),
    ("robust-pca", "nuclear"): (181, 272, 541, {"l": 181, "nuclear-norm": [[30, 3]]}),
    ("robust-pca", "norms"): (91, 182, 181, {"l1-norm": [[90, 4.0]], "nuclear-norm": [[30, 3, 32.0]]}),
}
QUICK = {
    ("robust-kalman", "conic"): {"normalize": "shared", "scale": 1.0, "tau_factor": 200.0},
    ("robust-kalman", "quadratic"): {"normalize": "shared", "scale": 2.0, "tau_factor": 200.0},
    ("robust-pca", "conic"): {"normalize": False, "zero_cone_factor": 100.0},
    ("robust-pca", "nuclear"): {"normalize": False},
    ("robust-pca", "norms"): {"normalize": False, "eliminate": True, "scale": 0.2},
}
"""Settings that solve in a few hundred evaluations."""
SIZES_OF_PCA = [form for name, form in SIZES if name == "robust-pca"]


def drawn(name: str, form: str, batch: int = 2, seed: int = 3, **options: Any) -> ConeProgram:
    return fp.families.create(name, form=form, **options).sample(batch, generator=torch.Generator().manual_seed(seed))


def tracks(batch: int = 2, seed: int = 3, **options: Any) -> np.ndarray:
    """(batch, 2, 50) measurements."""
    return RobustKalman(**options).measurements(batch, generator=torch.Generator().manual_seed(seed)).numpy()


def matrices(batch: int = 2, seed: int = 3, **options: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """(L*, S*) of instances drawn one after the other."""
    generator, family = torch.Generator().manual_seed(seed), RobustPCA(**options)
    return [tuple(part.numpy() for part in family._draw(generator)) for _ in range(batch)]  # type: ignore[misc]


def smoothing(y: np.ndarray) -> cp.Problem:
    """CVXPY's example as it is written there."""
    n, gamma, delt, tau, rho = 50, 0.05, 0.05, 2, 2
    A, B, C = np.zeros((4, 4)), np.zeros((4, 2)), np.zeros((2, 4))
    A[0, 0] = A[1, 1] = 1
    A[0, 2] = A[1, 3] = (1 - gamma * delt / 2) * delt
    A[2, 2] = A[3, 3] = 1 - gamma * delt
    B[0, 0] = B[1, 1] = delt**2 / 2
    B[2, 0] = B[3, 1] = delt
    C[0, 0] = C[1, 1] = 1
    x, w, v = cp.Variable((4, n + 1)), cp.Variable((2, n)), cp.Variable((2, n))
    objective = cp.sum_squares(w) + sum(tau * cp.huber(cp.norm(v[:, t]), rho) for t in range(n))
    constraints = []
    for t in range(n):
        constraints += [x[:, t + 1] == A @ x[:, t] + B @ w[:, t]]
    for t in range(n):
        constraints += [y[:, t] == C @ x[:, t] + v[:, t]]
    return cp.Problem(cp.Minimize(objective), constraints)


def decomposition(low: np.ndarray, sparse: np.ndarray) -> cp.Problem:
    left, rest = cp.Variable((30, 3)), cp.Variable((30, 3))
    return cp.Problem(
        cp.Minimize(cp.normNuc(left)), [cp.norm1(rest) <= np.abs(sparse).sum(), left + rest == low + sparse]
    )


def references(name: str) -> list[cp.Problem]:
    """The problems of `drawn(name, ...)`."""
    return (
        [smoothing(y) for y in tracks()] if name == "robust-kalman" else [decomposition(*pair) for pair in matrices()]
    )


@pytest.mark.parametrize(("name", "form"), SIZES)
def test_sizes(name: str, form: str) -> None:
    """The conic forms have the paper's; A, c and P are shared by the batch."""
    programs = drawn(name, form)
    n, m, entries, cones = SIZES[name, form]
    assert (programs.n, programs.m, programs.b.shape) == (n, m, (2, m))
    assert {key: value for key, value in programs.cones.items() if value} == cones
    assert programs.A.shape == (m, n)
    assert isinstance(programs.A, SparseMatrix)
    assert int((programs.A.values != 0).sum()) == entries == len(programs.patterns["A"])
    assert programs.c.shape == (n,)
    if form == "quadratic":
        assert programs.P is not None
        assert programs.P.shape == (n, n)
    else:
        assert programs.P is None


@pytest.mark.parametrize(("name", "form"), [key for key in SIZES if key[1] not in ("nuclear", "norms")])
def test_samples_are_cvxpy_s_own_data(name: str, form: str) -> None:
    programs = drawn(name, form)
    for i, problem in enumerate(references(name)):
        data = problem.get_problem_data("SCS", solver_opts={"use_quad_obj": form == "quadratic"})[0]
        assert np.allclose(dense(programs.A).numpy(), data["A"].toarray(), rtol=1e-14, atol=0)
        assert np.array_equal(programs.c.numpy(), data["c"])
        assert np.allclose(programs.b[i].numpy(), data["b"], rtol=1e-13, atol=0)
        if form == "quadratic":
            assert programs.P is not None
            assert np.allclose(dense(programs.P).numpy(), data["P"].toarray(), rtol=1e-14, atol=0)


def test_a_quadratic_objective_changes_nothing_about_pca() -> None:
    """Which is why there is no such form."""
    problem = decomposition(*matrices()[0])
    linear, quadratic = (problem.get_problem_data("SCS", solver_opts={"use_quad_obj": q})[0] for q in (False, True))
    assert (linear["A"] != quadratic["A"]).nnz == 0
    assert quadratic.get("P") is None or quadratic["P"].nnz == 0


@pytest.mark.parametrize(("name", "form"), SIZES)
def test_optima_are_clarabel_s(name: str, form: str) -> None:
    """All forms have the optimum that an interior-point solver finds for the problem as it was stated."""
    family, programs = fp.families.create(name, form=form, **QUICK[name, form]), drawn(name, form)
    solution = fp.solve(family.map, programs, "anderson-2", tolerance=1e-7)
    assert solution.statuses == [fp.Status.CONVERGED] * 2
    assert float(kkt_error(programs, *solution.output).max()) < 1e-6
    x = solution.output.x
    objective = x @ programs.c
    if programs.P is not None:
        objective = objective + (x * (x @ dense(programs.P))).sum(1) / 2
    for found, problem in zip(objective, references(name), strict=True):
        assert float(found) == pytest.approx(problem.solve(solver="CLARABEL"), rel=1e-5)


@pytest.mark.parametrize(("name", "form"), SIZES)
def test_sampling_is_determined_by_the_generator(name: str, form: str) -> None:
    few, many = drawn(name, form, batch=2), drawn(name, form, batch=5)
    assert torch.equal(few.b, many.b[:2])
    assert not torch.equal(few.b, drawn(name, form, seed=4).b)
    assert few.b.dtype == torch.float64


def test_tracks_follow_the_model() -> None:
    """Simulated step by step from what is drawn."""
    family, generator = RobustKalman(), torch.Generator().manual_seed(3)
    for y in tracks():
        w, v = (part.numpy() for part in family._draw(generator))
        position, velocity = np.zeros(2), np.zeros(2)
        for t in range(50):
            assert np.allclose(y[:, t], position + v[:, t], atol=1e-12)
            # damped by gamma = .05 a second, pushed by w for .05 seconds
            position = position + 0.05 * (1 - 0.00125) * velocity + 0.00125 * w[:, t]
            velocity = (1 - 0.0025) * velocity + 0.05 * w[:, t]


def test_shifted_tracks_are_what_they_say() -> None:
    far = {size: tracks(200, noise=0.0, size=size) for size in (20.0, 40.0, 80.0)}
    hit = (far[20.0] != 0).any(1)
    assert hit.mean() == pytest.approx(0.2, abs=0.01)
    assert np.abs(far[20.0].transpose(0, 2, 1)[hit]).max() < 100
    assert far[20.0].transpose(0, 2, 1)[hit].std() == pytest.approx(20, rel=0.03)
    assert np.allclose(far[40.0], 2 * far[20.0])
    assert np.allclose(far[80.0], 4 * far[20.0])
    near = {noise: tracks(200, noise=noise, outliers=0.0) for noise in (1.0, 2.0)}
    assert np.allclose(near[2.0], 2 * near[1.0])
    assert near[1.0][:, :, 0].std() == pytest.approx(1, rel=0.1), "at first the vehicle is at rest at 0"
    assert RobustKalman.shifts == {
        "outliers x2": {"size": 40.0},
        "outliers x4": {"size": 80.0},
        "noise x2": {"noise": 2.0},
    }


def test_shifted_matrices_are_what_they_say() -> None:
    for options, rank, outliers, size in (
        ({}, 2, 9, 10),
        (RobustPCA.shifts["outliers x2"], 2, 9, 20),
        (RobustPCA.shifts["outliers x4"], 2, 9, 40),
        (RobustPCA.shifts["rank 1, sparsity x2"], 1, 18, 10),
    ):
        pairs = matrices(100, **options)
        assert {int(np.linalg.matrix_rank(low)) for low, _ in pairs} == {rank}
        assert np.stack([low for low, _ in pairs]).std() == pytest.approx(rank**0.5, rel=0.05)
        assert {int((sparse != 0).sum()) for _, sparse in pairs} == {outliers}
        gross = np.stack([sparse for _, sparse in pairs])
        assert gross[gross != 0].std() == pytest.approx(size, rel=0.05)
        assert (np.stack([sparse != 0 for _, sparse in pairs]).mean(0) > 0).all(), "an outlier may be anywhere"


def test_norms_have_the_solution_of_the_nuclear_form() -> None:
    """The same L, and a solution of the other program that says so itself."""
    solved = {}
    for form in ("nuclear", "norms"):
        family = fp.families.create("robust-pca", form=form, **QUICK["robust-pca", form])
        programs = drawn("robust-pca", form)
        solution = fp.solve(family.map, programs, "anderson-2", tolerance=1e-8, max_evaluations=5000)
        assert solution.statuses == [fp.Status.CONVERGED] * 2
        assert float(family.error(programs, solution.output, solution.residual).max()) < 1e-7
        solved[form] = solution.output.x[:, :91]
    assert torch.allclose(solved["norms"], solved["nuclear"], rtol=0, atol=1e-4)


def test_norms_are_judged_as_the_nuclear_form() -> None:
    """Early points of the one violate the conditions of the other as much: on every row, counted in its units."""
    family, programs = RobustPCA("norms", normalize=False), drawn("robust-pca", "norms", batch=5)
    output = fp.solve(family.map, programs, max_evaluations=4).output
    other, point = as_nuclear(programs, output)
    assert torch.equal(other.b, drawn("robust-pca", "nuclear", batch=5).b)
    mine, theirs = kkt_terms(programs, *output), kkt_terms(other, *point)
    assert float(theirs["cone"][0].max()) < 1e-12
    assert float(theirs["dual cone"][0].max()) < 1e-12
    torch.testing.assert_close(mine["gap"][0], theirs["gap"][0])
    error, merit = (judge(programs, output, torch.zeros(5)) for judge in (family.error, family.merit))
    assert torch.equal(error, kkt_error(other, *point))
    assert bool((merit >= error).all())
    assert float(error.min()) > 1e-3


def test_the_wheel_is_given_the_conic_form() -> None:
    """The scs package has no nuclear norm: its error is that of the equivalent semidefinite program."""
    wheels = {form: RobustPCA(form).peers()[0] for form in SIZES_OF_PCA if form != "norms"}
    errors = {form: next(wheel.run(drawn("robust-pca", form), [40])).error for form, wheel in wheels.items()}
    assert torch.equal(errors["nuclear"], errors["conic"])
    assert float(errors["conic"].max()) < 1
    assert all(wheel.settings == {} for wheel in wheels.values())


@pytest.mark.parametrize("normalize", ["shared", False])
@pytest.mark.parametrize("name", ["robust-kalman", "robust-pca"])
def test_the_wheel_understands_our_settings(name: str, normalize: bool | str) -> None:
    family = fp.families.create(name, normalize=normalize)
    programs = family.sample(1, generator=torch.Generator().manual_seed(3))
    for peer in family.matched_peers():
        assert peer.settings["normalize"] is (normalize == "shared")
        assert torch.isfinite(next(peer.run(programs, [20])).error).all()


def test_the_scs_package_stands_beside_forms_that_it_knows() -> None:
    assert RobustPCA("norms", normalize=False).peers() == []
    assert [peer.name for peer in RobustPCA("nuclear").peers()] == [peer.name for peer in RobustPCA("conic").peers()]
