"""ISTA against scikit-learn and against the optimality conditions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet as Reference

import fixedpoint as fp
from maps.elastic_net import ElasticNet, ElasticNetProblem, RandomElasticNet


def problem(m: int = 30, n: int = 8) -> ElasticNetProblem:
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(4, m, n, generator=generator, dtype=torch.float64)
    b = torch.randn(4, m, generator=generator, dtype=torch.float64)
    return ElasticNetProblem(A, b, torch.tensor([0.5, 2.0, 5.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("name", fp.accelerators.names())
def test_agrees_with_scikit_learn(name: str) -> None:
    nets = problem()
    solution = fp.solve(ElasticNet(8, beta=0.7, step=1.0), nets, name, tolerance=1e-12, max_evaluations=3000)
    assert solution.converged.all()
    for i in range(3):
        reference = Reference(
            alpha=float(nets.mu[i]) / 30, l1_ratio=0.7, fit_intercept=False, tol=1e-14, max_iter=100_000
        )
        reference.fit(nets.A[i].numpy(), nets.b[i].numpy())
        assert np.allclose(solution.x[i].numpy(), reference.coef_, atol=1e-8)
    least_squares = torch.linalg.lstsq(nets.A[3], nets.b[3]).solution
    assert torch.allclose(solution.x[3], least_squares, atol=1e-8), "mu = 0 is least squares"


def test_residual_does_not_depend_on_the_step() -> None:
    nets = problem()
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    residuals = [fp.unroll(ElasticNet(8, step=step), nets, None, steps=1, start=start).residual for step in (0.3, 1.9)]
    assert torch.allclose(residuals[0], residuals[1], rtol=1e-12)
    assert (residuals[0] > 0.1).all()


def test_shared_matrix() -> None:
    nets = problem()
    shared = ElasticNetProblem(nets.A[0], nets.b, nets.mu)
    rows = ElasticNetProblem(nets.A[:1].expand(4, -1, -1), nets.b, nets.mu)
    one, two = (fp.unroll(ElasticNet(8), p, None, steps=9).fx for p in (shared, rows))
    assert torch.allclose(one, two, rtol=1e-12, atol=1e-13)


def test_the_paper_s_distribution() -> None:
    family = RandomElasticNet()
    nets = family.sample(400, generator=torch.Generator().manual_seed(0))
    assert nets.A.shape == (400, 25, 25)
    assert abs(float(nets.A.std()) - 1) < 0.01
    largest = (nets.A.mT @ nets.b[:, :, None])[:, :, 0].abs().amax(1)
    assert torch.allclose(nets.mu, 0.001 * largest / 0.5)


def test_features_are_what_the_first_steps_are_made_of() -> None:
    nets = problem()
    map = ElasticNet(8, beta=0.7, step=1.5)
    for shared in (False, True):
        asked = nets._replace(A=nets.A[0]) if shared else nets
        features = map.featurize(map.setup(asked))
        assert features.shape == (4, map.signature.features) == (4, 18)
        for i in range(4):
            A = nets.A[0 if shared else i]
            t = 1.5 / (torch.linalg.matrix_norm(A, ord=2) ** 2 + 0.3 * nets.mu[i])
            pull = A.mT @ nets.b[i]
            expected = torch.cat([pull, torch.diag(A.mT @ A), nets.mu[i : i + 1], pull.abs().max()[None]])
            assert torch.allclose(features[i], t * expected, rtol=1e-12)


def test_shifted_distributions_are_what_they_say() -> None:
    """b = A x + noise w: the true x and the noise are read off where the other is left out."""
    for spread, density in ((1.0, 0.1), (2.0, 0.1), (1.0, 0.4)):
        family = RandomElasticNet(noise=0.0, density=density, spread=spread)
        nets = family.sample(400, generator=torch.Generator().manual_seed(0))
        x = torch.linalg.solve(nets.A, nets.b[:, :, None])[:, :, 0]
        there = x.abs() > 1e-6
        assert float(there.double().mean()) == pytest.approx(density, rel=0.1)
        assert float(x[there].std()) == pytest.approx(spread, rel=0.1)
    for noise in (0.1, 0.3):
        nets = RandomElasticNet(noise=noise, density=0.0).sample(200, generator=torch.Generator().manual_seed(0))
        assert float(nets.b.std()) == pytest.approx(noise, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"), [({"beta": 1.5}, "beta"), ({"step": 2.0}, "step"), ({"size": 0}, "size")]
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ElasticNet(**options)


def test_bad_shapes() -> None:
    nets = problem()
    with pytest.raises(ValueError, match="A: expected 7 columns"):
        fp.solve(ElasticNet(7), nets)
    with pytest.raises(ValueError, match="b: expected 30 entries"):
        fp.solve(ElasticNet(8), nets._replace(b=nets.b[:, :5]))
