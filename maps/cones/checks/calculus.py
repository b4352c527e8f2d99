"""The laws of cones that need derivatives: those of a projection onto a convex set are symmetric contractions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fixedpoint.checks.report import NotApplicable, Violation
from maps.cones.checks.case import LOOSE, ConeCase, Projection, cone_law, cone_property, norm, require
from maps.cones.checks.derivatives import AGREE, differences, directions, jacobian


@cone_property("derivative-finite")
def finite(case: ConeCase, x: Tensor) -> None:
    """At the apex, on the boundary, at ties and repeated eigenvalues too, in double and in single precision."""
    for dtype in (torch.float64, torch.float32):
        for name, project in case.sides:
            if not bool(torch.isfinite(jacobian(project, x.to(dtype))).all()):
                raise Violation(
                    f"the derivative of {name} is not finite in {dtype}: a norm or sqrt at 0, where() around a "
                    "division by 0, eigenvectors of repeated eigenvalues?"
                )


@cone_property("vjp-jvp", share=0.5)
def modes(case: ConeCase, x: Tensor) -> None:
    """Forward and reverse mode are transposes of each other: <w, J u> = <J'w, u>."""
    u, w, _ = (d.expand_as(x).contiguous() for d in directions(case.cone.dim))
    for name, project in case.sides:
        pulled = torch.func.vjp(project, x)[1](w)[0]
        try:
            pushed = torch.func.jvp(project, (x,), (u,))[1]
        except RuntimeError as error:
            raise Violation(f"jvp of {name} raises: {error} (an autograd.Function without jvp?)") from error
        gap = ((w * pushed).sum(1) - (pulled * u).sum(1)).abs()
        require(gap, LOOSE, f"<w, J u> by jvp and <J'w, u> by vjp of {name} differ by {{}}: one of the rules is wrong")


@cone_property("derivative-symmetric")
def symmetric(case: ConeCase, x: Tensor) -> None:
    """It is symmetric: the projection is the gradient of a convex function."""
    for name, project in case.sides:
        j = jacobian(project, x)
        require(_largest(j - j.mT), LOOSE, f"the derivative of {name} is unsymmetric by {{}}: a wrong term?")


@cone_property("derivative-spectrum")
def spectrum(case: ConeCase, x: Tensor) -> None:
    """Its eigenvalues lie between 0 and 1."""
    if not case.cone.dim:
        return
    for name, project in case.sides:
        j = jacobian(project, x).nan_to_num()  # of NaN another law complains
        values = torch.linalg.eigvalsh((j + j.mT) / 2)
        require(-values, LOOSE, f"the derivative of {name} has the eigenvalue -{{}}: a wrong sign?")
        require(values - 1, LOOSE, f"the derivative of {name} has the eigenvalue 1 + {{}}: a wrong factor?")


@cone_property("euler")
def euler(case: ConeCase, x: Tensor) -> None:
    """DP(x) x = P(x): the derivative of a homogeneous function along its argument."""
    for name, project in case.sides:
        along = (jacobian(project, x) @ x[:, :, None])[:, :, 0]
        gap = (along - project(x)).abs() / norm(x)[:, None]
        require(
            gap, LOOSE, f"D {name}(x) x is not {name}(x) but off by {{}} (relative): a term of the rule is missing?"
        )


@cone_law("derivative")
def derivative(case: ConeCase) -> None:
    """It is the limit of differences, wherever differences have one."""
    compared = 0
    _require_rows(case)

    def law(x: Tensor) -> None:
        nonlocal compared
        for name, project in case.sides:
            measured, smooth = differences(project, x, torch.eye(case.cone.dim, dtype=x.dtype))
            compared += int(smooth.sum())
            _compare(jacobian(project, x), measured, smooth, AGREE, f"the derivative of {name}")

    case.explore("derivative", law)
    _require_some(compared)


@cone_law("second-derivative")
def second_derivative(case: ConeCase) -> None:
    """Derivatives of the derivative are right, or refused by raising RuntimeError or NotImplementedError."""
    compared, answers = 0, 0
    refusals: list[str] = []
    u, v, w = directions(case.cone.dim)
    _require_rows(case)

    def law(x: Tensor) -> None:
        nonlocal compared, answers
        x = x / norm(x)[:, None]  # second derivatives of homogeneous functions grow towards the apex
        for name, project in case.sides:
            slope = _slope(project, v, w)
            measured, smooth = differences(slope, x, u[None])
            compared += int(smooth.sum())
            for way, differentiate in _WAYS.items():
                try:
                    got = differentiate(slope, x, u.expand_as(x).contiguous())
                except RuntimeError as error:
                    refusals.append(f"{way}: {str(error) or type(error).__name__}")
                    continue
                answers += 1
                what = f"the second derivative of {name}, by {way},"
                _compare(got[:, None, None], measured, smooth, 10 * AGREE, what)

    case.explore("second-derivative", law, share=0.25)
    _require_some(compared)
    if not answers:
        raise NotApplicable(f"second derivatives are refused ({refusals[0]})")


def _slope(project: Projection, v: Tensor, w: Tensor) -> Projection:
    """(R, k) -> (R, 1): <w, DP(z) v>."""

    def slope(z: Tensor) -> Tensor:
        return (torch.func.vjp(project, z)[1](w.expand_as(z).contiguous())[0] * v).sum(1, keepdim=True)

    return slope


def _reverse(slope: Projection, x: Tensor, u: Tensor) -> Tensor:
    return (torch.func.grad(lambda z: slope(z).sum())(x) * u).sum(1)


def _forward(slope: Projection, x: Tensor, u: Tensor) -> Tensor:
    return torch.func.jvp(slope, (x,), (u,))[1][:, 0]


def _graph(slope: Projection, x: Tensor, u: Tensor) -> Tensor:
    """By backward through a graph of torch.autograd, as `create_graph=True` makes it."""
    with torch.enable_grad():
        z = x.clone().requires_grad_()
        return (torch.autograd.grad(slope(z).sum(), z)[0] * u).sum(1)


_WAYS: dict[str, Callable[[Projection, Tensor, Tensor], Tensor]] = {
    "torch.func, reverse": _reverse,
    "torch.func, forward over reverse": _forward,
    "torch.autograd": _graph,
}


def _compare(got: Tensor, measured: Tensor, smooth: Tensor, tolerance: float, what: str) -> None:
    """Derivatives (B, m, n) must be those measured along the smooth directions (B, n)."""
    gap = torch.where(smooth[:, None], (got - measured).abs().nan_to_num(torch.inf), 0.0)
    if not bool((gap <= tolerance).all()):
        place = gap.flatten().argmax()
        wrong, right = float(got.flatten()[place]), float(measured.flatten()[place])
        guess = ""
        if wrong == 0:
            guess = " (it is zero: a detach, or a backward that autograd cannot see through?)"
        elif abs(wrong + right) <= tolerance:
            guess = " (it has the opposite sign)"
        raise Violation(f"{what} is {wrong:.6g} where differences give {right:.6g}{guess}")


def _require_rows(case: ConeCase) -> None:
    if not case.cone.dim:
        raise NotApplicable("vectors of length 0 have no derivative")


def _require_some(compared: int) -> None:
    if not compared:
        raise Violation(
            "differences have a limit at none of the points, where a projection is smooth almost everywhere: "
            "float32 on the way, or an iteration that stops early?"
        )


def _largest(matrices: Tensor) -> Tensor:
    """(B, k, k) -> (B,)."""
    return matrices.abs().flatten(1).sum(1)
