"""Projections against definitions, closed forms and optimality conditions written here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scs
import torch
from scipy import sparse
from scipy.optimize import brentq, minimize
from torch import Tensor

from maps.cones import PSD, Box, Cone, Exponential, L1Norm, NuclearNorm, Power, SecondOrder
from tests.maps.cones.samples import CONES, INF, awkward, named, normal


def matrices(z: np.ndarray, order: int) -> np.ndarray:
    """svec to matrices, entry by entry."""
    found = np.zeros((len(z), order, order))
    place = 0
    for column in range(order):
        for row in range(column, order):
            factor = 1.0 if row == column else 1 / math.sqrt(2)
            found[:, row, column] = found[:, column, row] = factor * z[:, place]
            place += 1
    return found


@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_psd_clips_eigenvalues(order: int) -> None:
    cone = PSD(order)
    z = normal(cone, 6)
    values, vectors = np.linalg.eigh(matrices(z.numpy(), order))
    expected = np.einsum("bij,bj,bkj->bik", vectors, np.maximum(values, 0), vectors)
    assert np.abs(matrices(cone.project(z).numpy(), order) - expected).max(initial=0) < 1e-14
    assert torch.allclose(cone.vector(cone.matrix(z)), z)


@pytest.mark.parametrize("shape", [(1, 1), (4, 2), (2, 4), (3, 3)])
@pytest.mark.parametrize("tail", [1.0, 1e-9])
@pytest.mark.parametrize("slope", [1.0, 7.0])
def test_nuclear_norm_shrinks_singular_values(shape: tuple[int, int], tail: float, slope: float) -> None:
    """Also where some singular values are tiny and the shrinkage is too."""
    rng = np.random.default_rng(0)
    for excess in (-1.0, 1e-10, 0.1, 3.0):
        u, sigma, vt = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
        sigma[1:] *= tail
        x, t = u * sigma @ vt, (sigma.sum() - excess) / slope
        p = NuclearNorm(*shape, slope).project(torch.tensor(np.concatenate([[t], x.flatten("F")]))[None])[0].numpy()
        theta = threshold(sigma, t, slope)
        expected = u * np.maximum(sigma - theta, 0) @ vt
        assert abs(p[0] - t - slope * theta) < 1e-14 * (1 + abs(t))
        assert np.abs(p[1:].reshape(shape, order="F") - expected).max() < 1e-14 * (1 + abs(t))


def threshold(sizes: np.ndarray, t: float, slope: float) -> float:
    """By bisection: theta >= 0 at which the shrunk sizes add up to slope (t + slope theta)."""
    gap = lambda theta: np.maximum(sizes - theta, 0).sum() - slope * (t + slope * theta)  # noqa: E731
    return float(brentq(gap, 0, 1e3, xtol=1e-15)) if gap(0) > 0 else 0.0


@pytest.mark.parametrize("slope", [1.0, 0.2, 7.0])
def test_l1_norm_shrinks_magnitudes(slope: float) -> None:
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 30):
        for excess in (-1.0, 1e-10, 0.1, 3.0):
            v = rng.standard_normal(size)
            t = (np.abs(v).sum() - excess) / slope
            p = L1Norm(size, slope).project(torch.tensor(np.concatenate([[t], v]))[None])[0].numpy()
            theta = threshold(np.abs(v), t, slope)
            expected = np.concatenate([[t + slope * theta], np.sign(v) * np.maximum(np.abs(v) - theta, 0)])
            assert np.abs(p - expected).max() < 1e-14 * (1 + abs(t))


@pytest.mark.parametrize("slope", [1.0, 2.5])
def test_the_dual_of_the_l1_norm_is_a_cone_over_a_cube(slope: float) -> None:
    cone = L1Norm(5, slope)
    cube, z = Box([-1 / slope] * 5, [1 / slope] * 5), awkward(cone)
    size = 1 + z.abs().amax(1, keepdim=True)
    assert torch.allclose(cone.project_dual(z) / size, cube.project(z) / size, rtol=0, atol=1e-14)


def test_box_against_its_definition() -> None:
    """The best s for a t is clipped; the best t is found by a search."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        k = int(rng.integers(0, 6))
        lower, upper = np.sort(rng.standard_normal((2, k)) * 10.0 ** rng.integers(-3, 4, k), 0)
        equal, no_lower, no_upper = (rng.random(k) < 0.2 for _ in range(3))
        upper = np.where(equal, lower, upper)
        z = rng.standard_normal(1 + k) * 10.0 ** rng.integers(-1, 3, 1 + k)

        def slope(t: float, z: Any = z, bounds: Any = (lower, upper, no_lower, no_upper)) -> float:
            """Of half the squared distance."""
            lower, upper, no_lower, no_upper = bounds
            above, below = np.maximum(z[1:] - t * upper, 0), np.maximum(t * lower - z[1:], 0)
            return float(t - z[0] - upper @ np.where(no_upper, 0, above) + lower @ np.where(no_lower, 0, below))

        t = brentq(slope, 0, 1e9, xtol=1e-300, rtol=1e-15) if slope(0) < 0 else 0.0
        least, most = np.where(no_lower, -INF, lower * t), np.where(no_upper, INF, upper * t)
        lower, upper = np.where(no_lower, -INF, lower), np.where(no_upper, 1e16, upper)
        p = Box(lower, upper).project(torch.tensor(z)[None])[0].numpy()
        assert np.abs(p - np.concatenate([[t], np.clip(z[1:], least, most)])).max() < 1e-13 * np.abs(z).max()


def test_box_bounds_of_each_instance() -> None:
    cone = Box([-1.0, 0.5], [2.0, INF])
    z, d = normal(cone, 5), normal(cone, 5, seed=1).exp()
    bounds = cone.rescaled(d)
    assert torch.allclose(bounds[:, 0], torch.tensor([-1.0, 0.5], dtype=torch.float64) * d[:, 1:] / d[:, :1])
    for i in range(5):
        own = Box(bounds[i, 0].tolist(), bounds[i, 1].tolist())
        assert torch.allclose(cone.project(z, bounds)[i], own.project(z[i : i + 1])[0], rtol=0, atol=1e-15)
        assert torch.allclose(cone.project_dual(z, bounds)[i], own.project_dual(z[i : i + 1])[0], rtol=0, atol=1e-15)


def in_exponential(p: Tensor) -> Tensor:
    x, y, z = p.unbind(1)
    return (y > 0) & (z > 0) & (x <= y * torch.log(z / y))


def in_dual_exponential(p: Tensor) -> Tensor:
    u, v, w = p.unbind(1)
    return (u < 0) & (w > 0) & (v >= u * (1 + torch.log(-w / u)))


def in_power(a: float) -> Callable[[Tensor], Tensor]:
    return lambda p: (p[:, :2] > 0).all(1) & (p[:, 0].relu() ** a * p[:, 1].relu() ** (1 - a) >= p[:, 2].abs())


def in_dual_power(a: float) -> Callable[[Tensor], Tensor]:
    return lambda p: in_power(a)(p / torch.tensor([a, 1 - a, 1.0], dtype=p.dtype))


UP, UP_DUAL = (-1.0, 1.0, 1.0), (-1.0, 0.0, 1.0)
"""Interior directions."""
CERTIFIED: list[tuple[Cone, Any, Any, Any, Any]] = [
    (Exponential(), in_exponential, in_dual_exponential, UP, UP_DUAL),
    *((Power(a), in_power(a), in_dual_power(a), (1.0, 1.0, 0.0), (1.0, 1.0, 0.0)) for a in (0.5, 0.1, 0.99)),
    (Power(-0.3), in_dual_power(0.3), in_power(0.3), (1.0, 1.0, 0.0), (1.0, 1.0, 0.0)),
]


@pytest.mark.parametrize("case", CERTIFIED, ids=lambda case: named(case[0]))
def test_nearest_points_are_certified(case: tuple[Cone, Any, Any, Any, Any]) -> None:
    """P in K, p - z in K*, p'(p - z) = 0: nothing else is the nearest point. A step of 1e-13 inwards is allowed."""
    cone, inside, inside_dual, up, up_dual = case
    z = torch.cat([awkward(cone), normal(cone, 2000, seed=5), normal(cone, 500, seed=6) * torch.tensor([1e-3, 1, 1e3])])
    z = z[z.abs().amax(1) > 0]
    size = z.abs().amax(1, keepdim=True)
    p = cone.project(z) / size
    rest = p - z / size
    assert (p * rest).sum(1).abs().max() < 2e-15
    assert inside(p + 1e-13 * torch.tensor(up)).all()
    assert inside_dual(rest + 1e-13 * torch.tensor(up_dual)).all()


@pytest.mark.parametrize("exponent", [0.3, 0.5, 0.8])
def test_power_is_the_nearest_of_all_points(exponent: float) -> None:
    """A general minimizer over x, y and z = x^a y^(1-a), in logarithms."""
    for z in (np.array([1.0, -2.0, 3.0]), np.array([-0.2, 0.3, 1.0]), np.array([0.5, 0.4, 2.0])):
        surface = lambda q: np.array([*np.exp(q), np.exp(q @ [exponent, 1 - exponent])])  # noqa: E731
        objective = lambda q, z=z, surface=surface: ((surface(q) - z) ** 2).sum()  # noqa: E731
        best = minimize(objective, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15})
        assert np.abs(Power(exponent).project(torch.tensor(z)[None])[0].numpy() - surface(best.x)).max() < 1e-6


@pytest.mark.parametrize("exponent", [0.0, 1.0, -1.0])
def test_power_with_degenerate_exponents(exponent: float) -> None:
    """|z| <= x for 1 and -1, |z| <= y for 0; the other coordinate is at least 0: checked as second-order cones."""
    z = normal(Power(exponent), 50)
    main, other = (1, 0) if exponent == 0 else (0, 1)
    t, v = z[:, main], z[:, 2]
    share = torch.where(v.abs() <= t, 1.0, torch.where(v.abs() <= -t, 0.0, (t + v.abs()) / (2 * v.abs())))
    expected = torch.empty_like(z)
    expected[:, main] = torch.where(v.abs() <= t, t, share * v.abs())
    expected[:, other], expected[:, 2] = z[:, other].relu(), share * v
    assert torch.allclose(Power(exponent).project(z), expected, rtol=0, atol=1e-15)


WHEEL: list[tuple[Cone, dict[str, Any]]] = [
    (Exponential(), {"ep": 1}),
    *((Power(a), {"p": [a]}) for a in (0.3, -0.3, 1.0, 0.0)),
    (PSD(3), {"s": [3]}),
    (Box([-1.0, 0.0, -INF], [2.0, INF, 1.0]), {"bl": [-1.0, 0.0, -INF], "bu": [2.0, INF, 1.0]}),
]


@pytest.mark.parametrize("case", WHEEL, ids=lambda case: str(case[1]))
def test_as_the_scs_wheel(case: tuple[Cone, dict[str, Any]]) -> None:
    """Which solves for the nearest point as a program of its own."""
    cone, key = case
    eye = sparse.eye(cone.dim).tocsc()
    for z in normal(cone, 8, seed=8):
        data = {"P": eye, "A": -eye, "b": np.zeros(cone.dim), "c": -z.numpy()}
        settings = {"eps_abs": 1e-11, "eps_rel": 1e-11, "normalize": False, "scale": 1.0, "verbose": False}
        found = scs.SCS(data, key, **settings).solve()
        assert np.abs(found["s"] - cone.project(z[None])[0].numpy()).max() < 1e-8


@pytest.mark.parametrize("cone", CONES, ids=named)
def test_moreau_and_scale(cone: Cone) -> None:
    z = torch.cat([normal(cone, 200), awkward(cone)])
    size = torch.linalg.vector_norm(z, dim=1, keepdim=True) + torch.finfo().tiny
    p, q = cone.project(z), cone.project_dual(-z)
    assert ((p - q - z) / size).abs().max() < 1e-14
    assert ((p / size) * (q / size)).sum(1).abs().max() < 1e-14
    assert ((cone.project(p) - p) / size).abs().max() < 1e-14
    assert ((cone.project_dual(q) - q) / size).abs().max() < 1e-14
    for scale in (1e-100, 1e100):
        assert ((cone.project(z[:200] * scale) / scale - p[:200]) / size[:200]).abs().max() < 1e-14


def test_second_order_branches() -> None:
    z = torch.tensor([[5.0, 3.0, 4.0], [6.0, 3.0, 4.0], [-5.0, 3.0, 4.0], [0.0, 3.0, 4.0], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[5.0, 3.0, 4.0], [6.0, 3.0, 4.0], [0.0, 0.0, 0.0], [2.5, 1.5, 2.0], [0.0, 0.0, 0.0]])
    assert torch.equal(SecondOrder(3).project(z), expected)
    assert torch.equal(SecondOrder(3).project_dual(z), expected)


@pytest.mark.parametrize(("dtype", "slope"), [(torch.float32, 1e-4), (torch.float64, 1e-6)])
def test_the_l1_norm_keeps_an_entry_that_a_small_slope_would_round_away(dtype: torch.dtype, slope: float) -> None:
    t = 1e-4 if dtype == torch.float32 else 1e-7
    found = L1Norm(2, slope).project(torch.tensor([[t, 1.0, 0.2]], dtype=dtype))[0]
    theta = (1 - slope * t) / (1 + slope**2)
    assert float(found[0]) == pytest.approx(t + slope * theta, rel=1e-5)
    assert float(found[2]) == 0
