"""First this accelerator, then that: a warm start, some learned steps, then Anderson acceleration, say.

A part that is `observant` (Anderson acceleration) sees every evaluation from the start, so that when its turn comes it
has a history to work with; a part whose turn is over is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fixedpoint import Accelerator, Evaluation, Signature
from fixedpoint import accelerators as registry
from fixedpoint.learning.learned import rebuilt
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import any_row, is_readable, where_rows


class ScheduleState(NamedTuple):
    """Where each instance is in the schedule, and the state of every part."""

    seen: Tensor
    """(B,) int64, evaluations seen."""
    parts: tuple[Any, ...]


class Schedule(nn.Module, Accelerator):
    """Parts one after the other; the start is that of the first, handed through the others.

    Args:
        parts: accelerators or registered names, at least one.
        steps: evaluations that each part but the last is followed for, whole numbers >= 0. By default the `steps` of
            the parts themselves (learned ones have it; a warm start has 0).

    Raises:
        ValueError: no parts, steps of the wrong number or size; TypeError: a part that is no accelerator.
    """

    learns_from_others: ClassVar[bool] = True

    def __init__(self, parts: Sequence[Accelerator | str] = ("picard",), steps: Sequence[int] | None = None) -> None:
        super().__init__()
        if isinstance(parts, str) or not parts:
            raise ValueError(f"parts: expected a list of at least one accelerator, got {parts!r}")
        self.parts = [registry.create(part) if isinstance(part, str) else part for part in parts]
        for index, part in enumerate(self.parts):
            if not isinstance(part, Accelerator):
                raise TypeError(f"parts: expected accelerators or registered names, got {part!r}")
            if isinstance(part, nn.Module):
                self.add_module(f"part{index}", part)
        given: list[Any] = [getattr(part, "steps", None) for part in self.parts[:-1]] if steps is None else list(steps)
        if len(given) != len(self.parts) - 1 or not all(_is_count(count) for count in given):
            raise ValueError(
                f"steps: expected a whole number >= 0 for each of the {len(self.parts) - 1} part(s) before the last, "
                f"got {given}"
            )
        self.steps: list[int] = given
        self.uses_features = any(part.uses_features for part in self.parts)
        self.signature = next((part.signature for part in self.parts if part.signature is not None), None)
        self.eval()

    def bind(self, signature: Signature) -> Accelerator:
        """Every part bound."""
        bound = [part.bind(signature) for part in self.parts]
        same = all(new is old for new, old in zip(bound, self.parts, strict=True))
        return self if same else rebuilt(self, parts=bound)

    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, ScheduleState]:
        """The start of the first part, which is the cold start of the second, and so on."""
        x, states = x0, []
        for part in self.parts:
            x, state = part.init(x, features if part.uses_features else None, metric)
            states.append(state)
        return x, ScheduleState(torch.zeros_like(x0[:, 0], dtype=torch.int64), tuple(states))

    @property
    def learned_steps(self) -> int | None:  # type: ignore[override]
        """Until the last learned part's turn is over."""
        ends = [*accumulate(self.steps), sum(self.steps) + (self.parts[-1].learned_steps or 0)]
        return max(
            [end for part, end in zip(self.parts, ends, strict=True) if part.learned_steps is not None], default=None
        )

    def restart(self, x0: Tensor, metric: Tensor | None = None) -> ScheduleState:
        """At the turn of the last part."""
        seen = torch.full_like(x0[:, 0], sum(self.steps), dtype=torch.int64)
        return ScheduleState(seen, tuple(part.restart(x0, metric) for part in self.parts))

    def step(self, at: Evaluation, state: ScheduleState) -> tuple[Tensor, ScheduleState]:
        """What the part whose turn it is proposes."""
        following, states, begin = at.fx, [], 0
        ends = [*accumulate(self.steps), None]
        for part, own, end in zip(self.parts, state.parts, ends, strict=True):
            if end is None and begin == 0:  # it is alone from the start
                following, own = part.step(at, own)
            elif end != begin:
                following, own = self._turn(part, own, at, state.seen, begin, end, following)
            states.append(own)
            begin = begin if end is None else end
        return following, ScheduleState(state.seen + 1, tuple(states))

    def _turn(
        self, part: Accelerator, own: Any, at: Evaluation, seen: Tensor, begin: int, end: int | None, following: Tensor
    ) -> tuple[Tensor, Any]:
        """(The next point, the part's state) after a part has worked where it is its turn: evaluations begin to end."""
        over = torch.zeros_like(seen, dtype=torch.bool) if end is None else seen >= end
        waiting = over | (seen < begin)
        idle = over if part.learns_from_others else waiting
        if is_readable(idle) and bool(idle.all()):  # where values cannot be read, every part works
            return following, own
        proposal, stepped = part.step(at, own)
        following = where_rows(waiting, following, proposal) if any_row(waiting) else proposal
        return following, pytrees.transform(partial(where_rows, idle), own, stepped) if any_row(idle) else stepped


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
