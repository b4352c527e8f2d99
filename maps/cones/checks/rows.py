"""The laws of cones about batches: every row on its own, whatever its neighbours are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fixedpoint.checks.compare import changed_rows, distance, size, with_first
from fixedpoint.checks.report import Violation
from maps.cones.checks.case import EXACT, LOOSE, ConeCase, cone_property, require
from maps.cones.checks.derivatives import differences, jacobian

_COUPLED = "something reduces over the batch axis (a norm, .max() or .all() without dim=1?)"


@cone_property("rows-independent", rows=(2, 5), share=0.5)
def rows_independent(case: ConeCase, x: Tensor) -> None:
    """Row i of a projection and of its vjp depends on row i only: bit for bit at a fixed batch."""
    order = torch.arange(len(x)).roll(1)
    for name, project in case.sides:
        for what, function in ((name, project), (f"the vjp of {name}", _pulled(project))):
            before = function(x)
            for value in (torch.nan, torch.inf, 1e30, 0.0):
                try:
                    after = function(with_first(x, value))
                except Exception as error:
                    raise Violation(
                        f"{what} raises {type(error).__name__} with {value:g} in row 0: {error} - one diverged "
                        "instance would end the solve of all others; mask such rows"
                    ) from error
                if bool(changed_rows(before, after)[1:].any()):
                    raise Violation(f"{what}: other rows change when row 0 is set to {value:g}: {_COUPLED}")
        gap = distance(project(x[order]), project(x)[order], size(x)[order])
        require(gap, EXACT, f"{name} of permuted rows is off by {{}} (relative): {_COUPLED}")


def _pulled(project: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda z: torch.func.vjp(project, z)[1](torch.ones_like(z))[0]


@cone_property("batch-size", rows=(2, 4))
def batch_size(case: ConeCase, x: Tensor) -> None:
    """A batch gives what its rows give one by one, to working precision."""
    for name, project in case.sides:
        alone = torch.cat([project(x[b : b + 1]) for b in range(len(x))])
        gap = distance(project(x), alone, size(x))
        require(gap, EXACT, f"{name} of a batch differs from those of its rows by {{}} (relative): {_COUPLED}")


@cone_property("vmap", share=0.2)
def vmapped(case: ConeCase, x: Tensor) -> None:
    """Projections compose with torch.func's vmap, jacrev and jacfwd."""
    for name, project in case.sides:

        def one(z: Tensor, project: Callable[[Tensor], Tensor] = project) -> Tensor:
            return project(z[None])[0]

        smooth = differences(project, x, torch.eye(case.cone.dim, dtype=x.dtype))[1].all(1)
        ones = torch.ones(len(x), dtype=x.dtype)
        for what, function, expected, scale, tolerance, where in (
            ("vmap", one, project(x), size(x), EXACT, ones > 0),
            # where x is not smooth, rounding may choose another branch
            ("vmap of jacrev", torch.func.jacrev(one), jacobian(project, x), ones, LOOSE, smooth),
            ("vmap of jacfwd", torch.func.jacfwd(one), jacobian(project, x), ones, LOOSE, smooth),
        ):
            try:
                mapped = torch.func.vmap(function)(x)
            except Exception as error:
                raise Violation(
                    f"{what} of {name} raises {type(error).__name__}: {error} (in-place writes, boolean indexing, "
                    ".item(), `if tensor`, or an autograd.Function without `generate_vmap_rule` or without jvp?)"
                ) from error
            gap = torch.where(where, distance(mapped, expected, scale), 0.0)
            require(gap, tolerance, f"{what} of {name} is off by {{}} (relative): {_COUPLED}")
