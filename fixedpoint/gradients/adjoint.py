"""Gradients of a fixed point with respect to its problem, by the implicit function theorem.

At x* = f(x*; problem), with J = d(f o retract)/dx, the chain rule gives

    d<c, x*>/dproblem = (df/dproblem)^T w   where   (I - J)^T w = c.

`implicit_vjp` serves every map: `torch.func.vjp` supplies the products with J^T, a batched GMRES solves for w.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from fixedpoint.context import Context
from fixedpoint.tensors import pytrees

if TYPE_CHECKING:
    from fixedpoint.protocol import FixedPointMap

TRUSTED_RESIDUAL = 1e-6
"""Largest relative residual of the adjoint system that gives no warning (float64; 1e-4 in float32)."""


class AdjointWarning(UserWarning):
    """A gradient that cannot be trusted: the adjoint system is (nearly) singular, or x is no fixed point."""


class LinearSolution(NamedTuple):
    """The solution of a batch of linear systems."""

    x: Tensor
    """(B, n)"""
    residual: Tensor
    """(B,) ||rhs - A x|| / ||rhs||, recomputed from the operator; 0 where rhs = 0."""
    products: int
    """Products with the operator."""


def gmres(apply: Callable[[Tensor], Tensor], rhs: Tensor, *, rtol: float, max_products: int = 2000) -> LinearSolution:
    """Solve A x = rhs for every row: restarted GMRES (Saad & Schultz 1986) with a basis that doubles per cycle.

    Args:
        apply: (B, n) -> (B, n), rows independent.
        rhs: (B, n).
        rtol: relative residual at which to stop.
        max_products: budget; the residual reached is reported, never hidden.
    """
    norm = torch.linalg.vector_norm(rhs, dim=1)
    scale = torch.where(norm > 0, norm, torch.ones_like(norm))
    x, residual, products, size = torch.zeros_like(rhs), rhs, 0, 8
    relative = norm / scale
    while products < max_products and bool((relative > rtol).any()):
        size = min(size, rhs.shape[1])
        correction = _arnoldi(apply, residual, size)
        trial = x + correction
        new_residual = rhs - apply(trial)
        new_relative = torch.linalg.vector_norm(new_residual, dim=1) / scale
        better = new_relative < relative  # rows at round-off keep what they have
        x = torch.where(better[:, None], trial, x)
        residual = torch.where(better[:, None], new_residual, residual)
        products += size + 1
        if size == min(128, rhs.shape[1]) and not bool((new_relative < 0.9 * relative)[relative > rtol].any()):
            relative = torch.where(better, new_relative, relative)
            break  # stagnation: singular to working precision
        relative = torch.where(better, new_relative, relative)
        size = min(2 * size, 128)
    return LinearSolution(x, relative, products)


def _arnoldi(apply: Callable[[Tensor], Tensor], residual: Tensor, size: int) -> Tensor:
    """The minimal-residual correction from the Krylov space of dimension `size` of each row."""
    batch = residual.shape[0]
    beta = torch.linalg.vector_norm(residual, dim=1)
    basis = [_unit(residual, beta)]
    hessenberg = residual.new_zeros(batch, size + 1, size)
    for j in range(size):
        w = apply(basis[j])
        start = torch.linalg.vector_norm(w, dim=1)
        q = torch.stack(basis, dim=1)
        for _ in range(2):  # twice is enough (Kahan): orthogonal to working precision
            h = (q @ w[:, :, None])[:, :, 0]
            hessenberg[:, : j + 1, j] += h
            w = w - (h[:, None, :] @ q)[:, 0]
        length = torch.linalg.vector_norm(w, dim=1)
        length = torch.where(length > 1e-14 * start, length, torch.zeros_like(length))  # happy breakdown
        hessenberg[:, j + 1, j] = length
        basis.append(_unit(w, length))
    target = residual.new_zeros(batch, size + 1, 1)
    target[:, 0, 0] = beta
    y = _least_squares(hessenberg, target)
    return (torch.stack(basis[:size], dim=2) @ y)[:, :, 0]


def _least_squares(hessenberg: Tensor, target: Tensor) -> Tensor:
    """(B, k, 1) argmin ||H y - target||; 0 for the last columns of rows whose Krylov space is exhausted.

    Not torch.linalg.lstsq: up to torch 2.13 its driver "gelsy" reads uninitialised pivots (pytorch issue 187411), which
    now and then makes it wrong for matrices of deficient rank; the others need full rank or singular values.
    """
    q, r = torch.linalg.qr(hessenberg)
    diagonal = r.diagonal(dim1=1, dim2=2)
    size = diagonal.abs().amax(1, keepdim=True)
    spent = diagonal.abs() <= 1e-15 * size
    r = r + torch.diag_embed(torch.where(spent, 1 - diagonal, torch.zeros_like(diagonal)))
    right = torch.where(spent[:, :, None], torch.zeros_like(target[:, 1:]), q.mT @ target)
    return torch.linalg.solve_triangular(r, right, upper=True)


def _unit(vector: Tensor, length: Tensor) -> Tensor:
    return vector / torch.where(length > 0, length, torch.ones_like(length))[:, None] * (length > 0)[:, None]


def implicit_vjp(map: FixedPointMap, x_star: Tensor, context: Any, cotangent: Tensor) -> Any:
    """The default of `FixedPointMap.implicit_vjp`: see there for meaning, shapes and warnings.

    Raises:
        ValueError: the map's `setup` did not keep the problem in `Context.problem`.
    """
    problem = context.problem if isinstance(context, Context) else context
    if problem is None:
        raise ValueError(
            f"{type(map).__name__}.setup: the Context it returns must carry `problem=` for implicit gradients"
        )
    pull_x = torch.func.vjp(lambda x: map.forward(map.retract(x, context), context), x_star)[1]
    rtol = 1e-12 if x_star.dtype == torch.float64 else 1e-6
    solved = gmres(lambda w: w - pull_x(w)[0], cotangent, rtol=rtol)
    warn_untrusted(solved.residual)

    names = [n for n, t in pytrees.tensors(problem).items() if t.is_floating_point()]
    start = {n: pytrees.tensors(problem)[n] for n in names}

    def of_problem(values: dict[str, Tensor]) -> Tensor:
        prepared = map.setup(pytrees.replace(problem, values))
        return map.forward(map.retract(x_star, prepared), prepared)

    pull_problem = torch.func.vjp(of_problem, start)[1]
    return pytrees.replace(problem, pull_problem(solved.x)[0])


_FIRST: ContextVar[int] = ContextVar("_FIRST", default=0)


@contextmanager
def numbered_from(first: int) -> Iterator[None]:
    """Warnings in here are about rows of a chunk: its first one is instance `first` of the batch."""
    before = _FIRST.set(first)
    try:
        yield
    finally:
        _FIRST.reset(before)


def warn_untrusted(residual: Tensor) -> None:
    """Warn, naming the instances, when an adjoint residual (B,) is too large for the gradient to mean much."""
    limit = TRUSTED_RESIDUAL if residual.dtype == torch.float64 else 1e-4
    warn_instances(~(residual <= limit), f"the adjoint system was solved only to {float(residual.max()):.1e}")


def warn_instances(bad: Tensor, reason: str) -> None:
    """Warn that the implicit gradient of the instances in `bad` (B,) cannot be trusted."""
    if bool(bad.any()):
        rows = (_FIRST.get() + torch.nonzero(bad).flatten()).tolist()
        warnings.warn(
            f"implicit gradient of instance(s) {_listed(rows)} cannot be trusted: {reason} "
            "(a degenerate fixed point, or one that was not reached)",
            AdjointWarning,
            stacklevel=3,
        )


def _listed(items: list[int], most: int = 8) -> str:
    shown = ", ".join(str(i) for i in items[:most])
    return shown if len(items) <= most else f"{shown}, ... ({len(items)} in all)"
