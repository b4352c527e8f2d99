"""What a law about maps is tested on: a map, a batch of its problems, random points."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fixedpoint.checks.compare import changed_rows, clone, distance, size
from fixedpoint.checks.report import Laws, Violation
from fixedpoint.protocol import FixedPointMap
from fixedpoint.solution import Evaluation
from fixedpoint.tensors import pytrees

COUPLED = "something reduces over the batch axis (a norm, .max() or .all() without dim=1? a bare squeeze?)"


class MapCase:
    """A map with a copy of a batch of problems, so that the caller's tensors are safe from a broken map."""

    def __init__(self, map: FixedPointMap, problem: Any, reference: Tensor | None = None) -> None:
        self.map, self.reference = map, reference
        self.problem = clone(problem)
        self.parts = {n: t for n, t in pytrees.tensors(self.problem).items() if t.is_floating_point()}
        like = next(iter(self.parts.values()))
        self.dtype, self.device = like.dtype, like.device
        self.batch = pytrees.batch_size(problem, map.ranks) or 0
        self.eps = torch.finfo(self.dtype).eps
        self.exact = 4500 * self.eps  # 1e-12 in double precision: working precision, a few operations later
        self.loose = 4 * self.eps**0.5  # 6e-8: what differences of nearby numbers keep
        self.generator = torch.Generator().manual_seed(1)

    @cached_property
    def context(self) -> Any:
        """The prepared batch."""
        return self.map.setup(self.problem)

    @cached_property
    def x(self) -> Tensor:
        """(B, n) a random point."""
        return self.point()

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers in the problem's dtype."""
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64).to(self.dtype).to(self.device)

    def direction(self, x: Tensor) -> Tensor:
        """(B, n) a random direction about as long as x (as a vector of ones where x = 0)."""
        size = x.detach().abs().mean(1, keepdim=True)
        return self.randn(*x.shape) * torch.where(size > 0, size, torch.ones_like(size))

    def point(self) -> Tensor:
        """(B, n) a random point around the third plain iterate: where the map is used."""
        x = self.map.initial(self.context)
        for _ in range(3):
            x = self.map.forward(self.map.retract(x, self.context), self.context)
        x = x.detach()
        return x + 0.5 * self.direction(x)

    def step(self, x: Tensor) -> Tensor:
        """f(retract(x)): what is differentiated."""
        return self.map.forward(self.map.retract(x, self.context), self.context)

    def taken(self, index: Tensor) -> Any:
        """The problem of the instances in `index`."""
        rows = {n: t for n, t in pytrees.tensors(self.problem).items() if pytrees.is_row(n, t, self.map.ranks)}
        return pytrees.replace(self.problem, {n: t[index] for n, t in rows.items()})

    def everything(self, x: Tensor, context: Any) -> dict[str, Tensor]:
        """All that the map says of a point, by the method that says it; every tensor has one row per instance."""
        map = self.map
        x = map.retract(x, context)
        fx, aux = map.evaluate(x, context)
        at = Evaluation(x, fx, fx - x)
        residual, status = map.assess(at, aux, context)
        found = {
            "initial": map.initial(context),
            "featurize": map.featurize(context),
            "retract": x,
            "forward": map.forward(x, context),
            "evaluate": fx,
            "assess (residual)": residual,
            "assess (status)": status,
        }
        metric = map.metric(context)
        if metric is not None:
            found["metric"] = metric
        return found | {f"output ({name})": t for name, t in pytrees.tensors(map.output(at, aux, context)).items()}

    def require_same(self, old: dict[str, Tensor], new: dict[str, Tensor], spared: int, why: str) -> None:
        """All rows but `spared` must be bit for bit the same.

        Raises:
            Violation: they are not.
        """
        for name, before in old.items():
            rows = [r for r in torch.nonzero(changed_rows(before, new[name])).flatten().tolist() if r != spared]
            if rows:
                raise Violation(f"row {rows[0]} of `{name}` changed when {why}: {COUPLED}")

    def require_close(self, old: dict[str, Tensor], new: dict[str, Tensor], why: str) -> None:
        """Rows must agree to working precision; what is computed from differences, a little less so.

        Outputs are compared relative to the largest of them: some may be nothing but rounding errors.

        Raises:
            Violation: they do not.
        """
        for name, before in old.items():
            output = name.startswith("output")
            scale = torch.stack([size(t) for n, t in old.items() if n.startswith("output")]).amax(0) if output else None
            gap = distance(new[name], before, scale)
            if bool((gap > (self.loose if output or name.startswith("assess") else self.exact)).any()):
                row = int(gap.argmax())
                raise Violation(f"row {row} of `{name}` differs by {float(gap[row]):.1e} (relative) {why}")


map_law: Laws[MapCase] = Laws()
"""The laws of maps, in the order in which they are tested."""
