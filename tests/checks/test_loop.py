"""Faults of the loop that the checkers brought to light."""

import torch

import fixedpoint as fp
from fixedpoint.gradients.linear_solver import gmres
from maps.affine import Affine, AffineProblem, RandomAffine


def test_a_start_that_is_accepted_as_it_came_has_an_implicit_gradient():
    family = RandomAffine(4)
    problem = family.sample(3, generator=torch.Generator().manual_seed(0))
    start = family.reference(problem)
    b = problem.b.requires_grad_()
    solution = fp.solve(family.map, problem, start=start, gradient="implicit")
    assert solution.evaluations.tolist() == [1, 1, 1]
    assert solution.x is not start
    (gradient,) = torch.autograd.grad(solution.x.sum(), b)
    expected = torch.linalg.solve((torch.eye(4) - problem.A).mT, torch.ones_like(b))
    torch.testing.assert_close(gradient, expected)


def test_a_norm_that_overflows_is_not_a_stall():
    map, grows = Affine(2), 10 * torch.eye(2, dtype=torch.float64)
    solution = fp.solve(map, AffineProblem(grows, torch.ones(1, 2, dtype=torch.float64)), max_evaluations=1000)
    assert solution.statuses == [fp.Status.DIVERGED]


def test_the_adjoint_solver_survives_an_exhausted_krylov_space():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(3, 25, 6, generator=generator, dtype=torch.float64) for _ in "lr")
    matrix = torch.eye(25, dtype=torch.float64) + 0.1 * left @ right.mT  # Krylov spaces end after 7 products
    rhs = torch.randn(3, 25, generator=generator, dtype=torch.float64)
    solutions = []
    for number in range(20):
        junk = torch.full((16,), number, dtype=torch.int32)  # what torch.linalg.lstsq took for its pivots
        del junk
        solutions.append(gmres(lambda w: (matrix @ w[:, :, None])[:, :, 0], rhs, rtol=1e-12))
    assert all(float(solved.residual.max()) < 1e-12 for solved in solutions)
    assert all(torch.equal(solved.x, solutions[0].x) for solved in solutions)
