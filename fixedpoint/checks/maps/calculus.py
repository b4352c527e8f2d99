"""The laws of maps that need their derivative: the derivative itself and declared traits.

Every comparison with differences is relative to the size of the change itself, so that a derivative that is zero or
has the wrong sign cannot pass; kinks are met with several random points, most of which must agree.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fixedpoint.checks.compare import distance
from fixedpoint.checks.maps.case import MapCase, map_law
from fixedpoint.checks.report import NotApplicable, Violation

_norm = torch.linalg.vector_norm


@map_law("vjp-jvp")
def derivative(case: MapCase) -> None:
    """The derivative of f(retract(x)): forward and reverse mode agree with each other and with differences."""
    agreed = []
    for _ in range(5):
        x = case.point()
        u, w = case.direction(x), case.randn(*x.shape)
        ju = torch.func.jvp(case.step, (x,), (u,))[1]
        pulled = torch.func.vjp(case.step, x)[1](w)[0]
        if not bool(torch.isfinite(ju).all() and torch.isfinite(pulled).all()):
            raise Violation("the derivative is not finite (sqrt or a norm at 0? where() around a division by 0?)")
        gap = ((w * ju).sum(1) - (pulled * u).sum(1)).abs()
        size = _norm(w, dim=1) * _norm(ju, dim=1) + _norm(pulled, dim=1) * _norm(u, dim=1)
        if bool((gap > case.loose * size).any()):
            raise Violation(f"<w, J u> by jvp and <J'w, u> by vjp differ by {float(gap.max()):.1e}: one rule is wrong")
        agreed.append(_agrees(case, x, u, ju))
    share = float(torch.cat(agreed).double().mean())
    if share < 0.75:
        zero, sign = bool((ju == 0).all()), bool((_difference(case, x, u) * ju < 0).double().mean() > 0.9)
        guess = " (it is zero: a detach?)" if zero else " (it has the opposite sign)" if sign else ""
        raise Violation(f"the derivative agrees with central differences at only {share:.0%} of the points{guess}")


def _difference(case: MapCase, x: Tensor, u: Tensor, step: float = 1e-6) -> Tensor:
    return (case.step(x + step * u) - case.step(x - step * u)).detach() / (2 * step)


def _agrees(case: MapCase, x: Tensor, u: Tensor, ju: Tensor) -> Tensor:
    """(B,) whether J u is the central difference along u, for one of two steps, relative to the change."""
    agreed = torch.zeros(x.shape[0], dtype=torch.bool, device=x.device)
    noise = 100 * case.eps * _norm(case.step(x).detach(), dim=1)
    for step in (case.eps ** (1 / 3) / 5, case.eps ** (1 / 3)):
        measured = _difference(case, x, u, step)
        size = torch.maximum(_norm(measured, dim=1), _norm(ju, dim=1))
        agreed = agreed | (_norm(measured - ju, dim=1) <= case.eps**0.25 * size + noise / step)
    return agreed


@map_law("traits")
def traits(case: MapCase) -> None:
    """Declared traits hold on pairs of points in the map's metric, the most expanding direction included."""
    declared = case.map.signature.traits
    average = case.map.signature.averagedness
    if not declared and average is None:
        raise NotApplicable("no trait is declared")

    def f(x: Tensor) -> Tensor:
        return case.map.forward(x, case.context)

    if declared & {"contractive", "nonexpansive"}:
        stretch, limit = _stretch(case, f), 1 - case.loose if "contractive" in declared else 1 + case.loose
        if stretch > limit:
            promise = "contractive" if "contractive" in declared else "nonexpansive"
            raise Violation(f'declared "{promise}", but a distance is multiplied by {stretch:.6g} in the map\'s metric')
    if average is not None:
        stretch = _stretch(case, lambda x: (f(x) - (1 - average) * x) / average)  # f = (1 - a) I + a N
        if stretch > 1 + case.loose:
            raise Violation(f"declared {average:g}-averaged, but its N = (f - (1 - a) I)/a expands by {stretch:.6g}")
    if "homogeneous" in declared:
        x = case.point()
        for factor in (1e-3, 0.7, 5.0, 1e3):
            gap = _norm(f(factor * x) - factor * f(x), dim=1) / _norm(factor * f(x), dim=1).clamp(min=1e-300)
            if bool((gap > case.loose).any()):
                raise Violation(f'declared "homogeneous", but f({factor:g} x) is not {factor:g} f(x)')
            known, scaled = (case.map.dehomogenized(c * x, case.context) for c in (1.0, factor))
            if bool((distance(known, scaled) > case.loose).any()):
                raise Violation(
                    f'declared "homogeneous", but `normalized` tells x from {factor:g} x: a loss could be lowered by '
                    "inflating the scale"
                )


def _stretch(case: MapCase, function: Callable[[Tensor], Tensor]) -> float:
    """The largest ||g(x) - g(y)|| / ||x - y|| found, in the map's metric."""
    metric = case.map.metric(case.context)
    weight = torch.ones_like(case.x) if metric is None else metric

    def size(v: Tensor) -> Tensor:
        return torch.sqrt((weight * v * v).sum(1))

    largest = 0.0
    for _ in range(2):
        x = case.point()
        for u in (case.direction(x), _most_expanding(function, x, case.direction(x), weight)):
            for length in (1.0, 1e-3):
                step = length * u * (size(x) / size(u))[:, None]
                ratio = size(function(x + step) - function(x)) / size(step)
                largest = max(largest, float(ratio.detach().max()))
    return largest


def _most_expanding(function: Callable[[Tensor], Tensor], x: Tensor, u: Tensor, weight: Tensor) -> Tensor:
    """(B, n) the direction that the derivative expands most, by power iteration; u where there is no derivative."""
    try:
        pull = torch.func.vjp(function, x)[1]
        for _ in range(20):
            ju = torch.func.jvp(function, (x,), (u,))[1]
            following = pull(weight * ju)[0] / weight
            length = _norm(following, dim=1, keepdim=True)
            u = torch.where(length > 0, following / torch.where(length > 0, length, 1.0), u)
    except Exception:
        return u  # the law about derivatives complains
    return u.detach()
