"""A solve as a function of tensors: everything of it but the numbers that may be differentiated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fixedpoint.protocol import Accelerator, FixedPointMap
from fixedpoint.solution import Status
from fixedpoint.solve.loop import Iteration, LoopResult, run
from fixedpoint.solve.prepared import Prepared
from fixedpoint.solve.screening import OnInvalid, blank, screened
from fixedpoint.solve.stopping import Stopping
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import in_place_version, is_plain


@dataclass(frozen=True)
class SolveTask:
    """Everything of a solve but its tensors: what a gradient strategy differentiates is `run`, a function of these."""

    map: FixedPointMap
    accelerator: Accelerator
    problem: Any
    """Gives structure and names only: its tensors are replaced by those of each call."""
    stopping: Stopping
    on_invalid: OnInvalid
    start: Any = None
    """The structure of the output that the solve starts from (tensors (0, k)); None: it starts from an x."""
    prepared: Prepared | None = None
    """What the batch shares, checked already."""
    invalid: Tensor | None = None
    """(B,) rows that were replaced, where the data `is_screened`."""
    is_screened: bool = False
    first_row: int = 0
    """Number of the first row in the batch that these are a chunk of."""
    outputs: list[Any] = field(default_factory=list)
    """The structure of the map's output, left here by the forward pass (a Function returns flat tensors)."""
    contexts: list[Any] = field(default_factory=list)
    """What the forward pass left of its context, and of which tensors it was: the backward pass needs the same."""

    def run(self, parts: dict[str, Tensor], start: Tensor | None) -> LoopResult:
        """Screen the data, then run the loop; invalid instances come back as NaN.

        Args:
            parts: the problem's tensors by name.
            start: (B, n) the first point, or (B, K) the parts of an output side by side; None: the cold start.
        """
        problem, invalid = self.with_parts(parts), self.invalid
        if not self.is_screened:
            problem, invalid = screened(self.map, problem, self.on_invalid)
        context = self.setup(problem)
        if invalid is None:
            self.contexts[:] = [(_stamp(parts), context)]
        if self.start is not None and start is not None:
            pieces = start.split([t.shape[1] for t in pytrees.tensors(self.start).values()], dim=1)
            output = pytrees.replace(self.start, dict(zip(pytrees.tensors(self.start), pieces, strict=True)))
            start = self.map.resume(output, context)
        result = run(self.map, context, self.accelerator, start, self.stopping, invalid=invalid)
        return result if invalid is None else blank(result, invalid)

    def setup(self, problem: Any) -> Any:
        """The context of a problem."""
        if self.prepared is None:
            return self.map.setup(problem)
        return self.map.setup_shared(problem, self.prepared.shared)

    def context_of(self, parts: dict[str, Tensor]) -> Any:
        """The context of the problem made of these tensors: that of the forward pass, if they are its own, or anew."""
        stamp = _stamp(parts)
        if stamp is not None and self.contexts and self.contexts[0][0] == stamp:
            return self.contexts[0][1]
        return self.map.setup(self.with_parts(parts))

    def with_parts(self, parts: dict[str, Tensor]) -> Any:
        """The problem made of these tensors."""
        return pytrees.replace(self.problem, parts)

    def unsolved(self, problem: Any) -> LoopResult:
        """What `run` returns looks like, from one evaluation; every instance is INVALID."""
        iteration = Iteration(self.map, self.setup(problem), self.accelerator)
        at, aux = iteration.evaluate()
        residual, status = iteration.assess(at, aux)
        x, output = self.map.original(at, aux, iteration.context), self.map.output(at, aux, iteration.context)
        status = torch.full_like(status, Status.INVALID)
        return LoopResult(x, output, residual, status, torch.zeros_like(status))


def _stamp(parts: dict[str, Tensor]) -> list[Any] | None:
    """Tells whether tensors are the same, unchanged; None inside a torch.func transform, where nobody can tell."""
    if not all(is_plain(t) for t in parts.values()):
        return None
    return [(name, t.data_ptr(), in_place_version(t), t.shape, t.stride(), t.dtype) for name, t in parts.items()]
