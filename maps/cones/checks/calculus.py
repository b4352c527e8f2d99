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
    compared = _counts(case)

    def law(x: Tensor) -> None:
        for name, project in case.sides:
            measured, smooth = differences(project, x, torch.eye(case.cone.dim, dtype=x.dtype))
            compared[name] += int(smooth.sum())
            _compare(jacobian(project, x), measured, smooth, AGREE, f"the derivative of {name}")

    case.explore("derivative", law)
    _require_some(case, law, compared)


@cone_law("second-derivative")
def second_derivative(case: ConeCase) -> None:
    """Derivatives of the derivative are right, or refused by raising RuntimeError or NotImplementedError."""
    compared, answers = _counts(case), 0
    refusals: list[str] = []
    u, v, w = directions(case.cone.dim)

    def law(x: Tensor) -> None:
        nonlocal answers
        x = x / norm(x)[:, None]  # second derivatives of homogeneous functions grow towards the apex
        for name, project in case.sides:
            measured, smooth = differences(_slope(project, v, w), x, u[None])
            compared[name] += int(smooth.sum())
            for way, differentiate in _WAYS.items():
                try:
                    got = differentiate(project, x, u, v, w)
                except RuntimeError as error:
                    refusals.append(f"{way}: {str(error) or type(error).__name__}")
                    continue
                answers += 1
                what = f"the second derivative of {name}, by {way},"
                _compare(got[:, None, None], measured, smooth, 10 * AGREE, what)

    case.explore("second-derivative", law, share=0.25)
    _require_some(case, law, compared)
    if not answers:
        raise NotApplicable(f"second derivatives are refused ({refusals[0]})")


def _slope(project: Projection, v: Tensor, w: Tensor) -> Projection:
    """(R, k) -> (R, 1): <w, DP(z) v>."""

    def slope(z: Tensor) -> Tensor:
        return (torch.func.vjp(project, z)[1](w.expand_as(z).contiguous())[0] * v).sum(1, keepdim=True)

    return slope


def _reverse(project: Projection, x: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    slope = _slope(project, v, w)
    return (torch.func.grad(lambda z: slope(z).sum())(x) * u).sum(1)


def _forward(project: Projection, x: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    return torch.func.jvp(_slope(project, v, w), (x,), (u.expand_as(x).contiguous(),))[1][:, 0]


def _graph(project: Projection, x: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """A missing path from the derivative back to x counts as zero, as it does in a larger graph."""
    with torch.enable_grad():
        z, cotangent = x.clone().requires_grad_(), w.expand_as(x).clone().requires_grad_()
        (pulled,) = torch.autograd.grad(project(z), z, cotangent, create_graph=True)
        return (torch.autograd.grad((pulled * v).sum(), z, materialize_grads=True)[0] * u).sum(1)


_WAYS: dict[str, Callable[[Projection, Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "torch.func, reverse": _reverse,
    "torch.func, forward over reverse": _forward,
    "torch.autograd, create_graph": _graph,
}
"""(project, x, u, v, w) -> (B,) the derivative of <w, DP(x) v> along u."""


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


def _counts(case: ConeCase) -> dict[str, int]:
    """How many derivatives were compared, of each projection."""
    if not case.cone.dim:
        raise NotApplicable("vectors of length 0 have no derivative")
    return {name: 0 for name, _ in case.sides}


def _require_some(case: ConeCase, law: Callable[[Tensor], None], compared: dict[str, int]) -> None:
    if not all(compared.values()):  # few examples may all be awkward
        law(torch.randn(16, case.cone.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    for name, count in compared.items():
        if not count:
            raise Violation(
                f"differences of {name} have a limit at none of the points, where a projection is smooth almost "
                "everywhere: float32 on the way, or an iteration that stops early?"
            )


def _largest(matrices: Tensor) -> Tensor:
    """(B, k, k) -> (B,)."""
    return matrices.abs().flatten(1).sum(1)
