"""The implicit derivative of a cone program: gradients of its solution with respect to A, b, c and P.

With w = s - t y, for any t > 0, a solution satisfies s = P_K(w) and t y = P_K(w) - w, so that it is a zero of

    F(x, w) = (P x + A'(P_K(w) - w) / t + c,   A x + P_K(w) - b).

With D the derivative of P_K at w, a symmetric matrix, gradients of <dx, x> + <dy, y> + <ds, s> follow from one system
with the transposed Jacobian of F,

    P p + A'q = dx,    (D - I) A p / t + D q = D ds + (D - I) dy / t,

as dc = -p, db = q, dA = -(y p' + q x'), dP = -(p x' + x p') / 2. (Agrawal, Barratt, Boyd, Busseti & Moursi 2019
differentiate the homogeneous embedding instead, for P = 0.) `system` sets it up, `solve` solves it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fixedpoint.tensors import pytrees
from maps.scs.adjoint import solve
from maps.scs.adjoint.system import balanced
from maps.scs.certify.kkt import kkt_terms
from maps.scs.problem.program import ConeProgram
from maps.scs.problem.sparse_matrix import Matrix, SparseMatrix

RANKS = {"A": 2, "A.values": 1, "b": 1, "c": 1, "P": 2, "P.values": 1}
"""Axes of a leaf that the batch shares; one more where it has a row per instance."""


DENSE = 8
"""A whole matrix is made of vectors as fast as one in that many of its entries one by one."""


class ProgramGradient(NamedTuple):
    """Gradients with respect to a program's data, each of the shape of its leaf, and how far to trust them."""

    A: Matrix
    """(B, m, n), or (m, n) where the program shares A: then the sum over the batch, as for every shared leaf. Of a
    dense matrix all entries, zeros included; of a `SparseMatrix` the stored ones."""
    b: Tensor
    """(B, m) or (m,)"""
    c: Tensor
    """(B, n) or (n,)"""
    P: Matrix | None
    """(B, n, n) or (n, n), symmetric, for the entries of the full matrix: a symmetric change E of P changes the loss by
    sum(P * E), so that changing a pair (i, j), (j, i) counts both entries. None where the program has no P."""
    residual: Tensor
    """(B,) relative residual of the linear system; 0 where its right-hand side is, NaN where a number is not finite."""
    degenerate: Tensor
    """(B,) bool: the gradient is not unique, or does not exist, because

    - the system is singular. The gradient is then its least-squares solution of least norm: with a vanishing residual
      it is right for changes that leave the program solvable (redundant equations), otherwise the solution is not
      unique and has no derivative. A system with n + m > 3000 shows only in its residual that it is singular;
    - or the projection has a kink at w (no strict complementarity): the gradient is one of several one-sided ones;
    - or a number is not finite: the gradient is NaN.

    Never where the cotangent is 0."""
    kkt_error: Tensor
    """(B,) `kkt_error` of the given point, inf where a number is not finite: the derivative is that of a solution only
    as far as this is small."""


@torch.no_grad()
def vjp(program: ConeProgram, x: Tensor, y: Tensor, s: Tensor, dx: Tensor, dy: Tensor, ds: Tensor) -> ProgramGradient:
    """Gradients of <dx, x> + <dy, y> + <ds, s> with respect to the data, at solutions (x, y, s).

    Up to n + m = 3000 the systems are factored (QR; singular values where that finds a singular one), beyond they are
    solved by GMRES. Over the zero cone and the nonnegative orthant a faster factorization comes before QR, for all
    whose solution it can vouch for (`adjoint_polyhedral`). Instances do not influence each other. A gradient that
    cannot be trusted is reported in the result, see `ProgramGradient`; nothing is raised or warned about.

    Args:
        program: a batch of B programs, or a single one that all points are solutions of.
        x, y, s: (B, n), (B, m), (B, m).
        dx, dy, ds: their cotangents, of the same shapes.

    Raises:
        ValueError: shapes that do not fit the program.
    """
    points = {"x": x, "y": y, "s": s, "dx": dx, "dy": dy, "ds": ds}
    _check_shapes(program, points)
    usable = _finite(program, torch.cat(list(points.values()), 1))
    wanted = (torch.cat([dx, dy, ds], 1) != 0).any(1)
    given = program
    if not bool(usable.all()):  # 0 in place of what would spoil a factorization, NaN in the result
        program = _zeroed(program, usable)
        x, y, s, dx, dy, ds = (torch.where(usable[:, None], t, 0.0) for t in points.values())

    system, units = balanced(program, y, s)
    dy_unit, ds_unit = units.y * dy, units.s * ds
    rhs = torch.cat([units.x * dx, system.derivative()(ds_unit + dy_unit) - dy_unit], 1)
    z, singular = solve.solve(system, rhs)
    size = torch.linalg.vector_norm(rhs, dim=1)
    residual = torch.linalg.vector_norm(rhs - system.operator()(z), dim=1) / torch.where(size > 0, size, 1.0)

    error = torch.stack([violation / (1 + size) for violation, size in kkt_terms(program, x, y, s).values()]).amax(0)
    degenerate = wanted & (singular | solve.at_kink(system, units, error) | ~usable)
    nothing = torch.where(wanted & ~usable, torch.nan, 0.0)
    p, q = (z + nothing[:, None]).split([program.n, program.m], 1)
    p, q = p * units.columns / units.dual, q * units.rows / units.primal
    return ProgramGradient(
        A=_outer(given.A, (-y, p), (-q, x)),
        b=q if given.b.ndim == 2 else q.sum(0),
        c=-p if given.c.ndim == 2 else -p.sum(0),
        P=None if given.P is None else _outer(given.P, (-p / 2, x), (-x / 2, p)),
        residual=residual + nothing,
        degenerate=degenerate,
        kkt_error=torch.where(usable, error, torch.inf),
    )


def _outer(leaf: Matrix, *pairs: tuple[Tensor, Tensor]) -> Matrix:
    """The sum of u v' over the pairs, in the form of a leaf: its batch axis, or the sum over the batch; its pattern."""
    if isinstance(leaf, SparseMatrix):
        (m, n), (rows, columns) = leaf.pattern.shape, leaf.pattern.index(leaf.values.device)
        if DENSE * len(leaf.pattern) >= m * n:
            left, right = torch.stack([u for u, _ in pairs], 2), torch.stack([v for _, v in pairs], 1)
            values = (left @ right).flatten(1).index_select(1, rows * n + columns)
        else:
            one, two = (u.index_select(1, rows) * v.index_select(1, columns) for u, v in pairs)
            values = one + two
        return SparseMatrix(values if leaf.ndim == 3 else values.sum(0), leaf.pattern)
    (u, v), (t, w) = pairs
    if leaf.ndim == 2:
        return u.mT @ v + t.mT @ w
    return u[:, :, None] * v[:, None] + t[:, :, None] * w[:, None]


def _check_shapes(program: ConeProgram, points: dict[str, Tensor]) -> None:
    batch = points["x"].shape[0] if program.batch is None else program.batch
    for name, point in points.items():
        expected = (batch, program.n if name.endswith("x") else program.m)
        if tuple(point.shape) != expected:
            raise ValueError(f"{name}: expected shape {expected}, got {tuple(point.shape)}")


def _finite(program: ConeProgram, points: Tensor) -> Tensor:
    """(B,) whether all of an instance's numbers are finite; those it shares are its own too."""
    parts = pytrees.tensors(program)
    if bool(torch.isfinite(torch.stack([t.sum() for t in (points, *parts.values())])).all()):
        return torch.ones_like(points[:, 0], dtype=torch.bool)  # a look at sums is ten times faster
    usable = torch.isfinite(points).all(1)
    for name, leaf in parts.items():
        finite = torch.isfinite(leaf)
        usable = usable & (finite.flatten(1).all(1) if leaf.ndim > RANKS[name] else finite.all())
    return usable


def _zeroed(program: ConeProgram, usable: Tensor) -> ConeProgram:
    """The program with zeros for the data of the other instances, and in what is shared where none is usable."""

    def clean(leaf: Tensor, rank: int) -> Tensor:
        kept = usable.reshape(-1, *[1] * rank) if leaf.ndim > rank else usable.any()
        return torch.where(kept, leaf, 0.0)

    return pytrees.replace(program, {name: clean(t, RANKS[name]) for name, t in pytrees.tensors(program).items()})
