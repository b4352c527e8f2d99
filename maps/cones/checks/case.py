"""What a law about cones is tested on, and how laws are registered."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from fixedpoint.checks.report import Laws, Violation
from maps.cones.cone import Cone

Projection = Callable[[Tensor], Tensor]

EXACT = 4500 * torch.finfo(torch.float64).eps
"""1e-12: working precision, a few operations later."""
LOOSE = 4 * torch.finfo(torch.float64).eps ** 0.5
"""6e-8: what derivatives keep."""
FEWEST = 10
"""Examples that a law needs to say anything; the first is always the apex."""
_LITTLE = 1e-6
"""An error as small as single precision makes."""


class ConeCase:
    """A cone, and how it is to be tested: see `check_cone` for the arguments."""

    def __init__(self, cone: Cone, inequality: Projection | None, examples: int, seed: int | None) -> None:
        self.cone, self.inequality, self.examples, self.seed = cone, inequality, examples, seed
        self.sides: tuple[tuple[str, Projection], ...] = (
            ("project", cone.project),
            ("project_dual", cone.project_dual),
        )

    def explore(
        self, name: str, law: Callable[..., None], points: int = 1, rows: tuple[int, int] = (1, 4), share: float = 1
    ) -> None:
        """Test `law(x, ...)` on batches of points; `name` makes them those of one check.

        Args:
            name: of the check.
            law: raises Violation.
            points: how many batches it takes, all with the same number of rows.
            rows: fewest and most of them.
            share: of the examples, for laws that take long.

        Raises:
            Violation: it does not hold.
        """
        from maps.cones.checks.explore import explore  # needs hypothesis

        examples = max(FEWEST // 2, math.ceil(share * self.examples))
        explore(name, law, self.cone, points=points, rows=rows, examples=examples, seed=self.seed)


class ConeLaws(Laws[ConeCase]):
    """The laws of cones."""

    def only(self, names: Collection[str]) -> ConeLaws:
        """Those of these names.

        Raises:
            ValueError: there is no law of a name.
        """
        for name in names:
            if name not in self._laws:
                close = difflib.get_close_matches(name, self._laws, n=1)
                hint = f", did you mean {close[0]!r}?" if close else f"; there are {', '.join(self._laws)}"
                raise ValueError(f"checks: none is named {name!r}{hint}")
        chosen = ConeLaws()
        chosen._laws = {name: law for name, law in self._laws.items() if name in names}
        return chosen


cone_law = ConeLaws()
"""The laws of cones, in the order in which they are tested."""


def cone_property(
    name: str, *, points: int = 1, rows: tuple[int, int] = (1, 4), share: float = 1
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `law(case, x, ...)` under `name`; the arguments are those of `ConeCase.explore`."""

    def register(law: Callable[..., None]) -> Callable[..., None]:
        @cone_law(name)
        def test(case: ConeCase) -> None:
            case.explore(name, lambda *drawn: law(case, *drawn), points, rows, share)

        return law

    return register


def require(gap: Tensor, tolerance: float, message: str) -> None:
    """No number of `gap` may exceed the tolerance or be NaN; the message may show the largest as {}.

    Raises:
        Violation: one does.
    """
    if not bool((gap <= tolerance).all()):
        largest = float(gap.nan_to_num(torch.inf).max())
        hint = " (so little: a constant made in float32? an iteration that stops early?)" if largest < _LITTLE else ""
        raise Violation(message.format(f"{largest:.1e}") + hint)


def norm(x: Tensor) -> Tensor:
    """(B, k) -> (B,) the length of each row; 1 where it is 0, for the sake of quotients."""
    length = torch.linalg.vector_norm(x, dim=1)
    return torch.where(length > 0, length, 1.0)
