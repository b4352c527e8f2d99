"""The linear systems of implicit derivatives: batched GMRES."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


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
