"""What the problems of several solves share, prepared once and held by the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fixedpoint.protocol import FixedPointMap
from fixedpoint.tensors import pytrees
from fixedpoint.tensors.masks import is_constant


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a batch of problems shares (a scaling, factors), made by `prepare` for `solve(..., prepared=)`.

    It holds a copy of the data that it was made from, and serves no other: problems are compared number by number.
    """

    made_by: tuple[Any, ...]
    """Kind, signature and `built_with` of the map."""
    data: Mapping[str, Tensor]
    """The shared leaves that it was made from, by name."""
    shared: Any
    """What `FixedPointMap.prepare` returned."""

    def check(self, map: FixedPointMap, problem: Any) -> None:
        """Refuse a map or a problem that it was not made for.

        Raises:
            ValueError: another map, other shared leaves, or leaves that are differentiated or mapped here; names which.
        """
        for what, one, two in zip(("map", "signature", "options"), self.made_by, _maker(map), strict=True):
            if one != two:
                raise ValueError(f"prepared: it was made by a map of another {what}; prepare anew with this map")
        found = _shared(map, problem)
        if found.keys() != self.data.keys():
            raise ValueError(
                f"prepared: it was made for problems that share {_listed(self.data)}, these share {_listed(found)}"
            )
        for name, leaf in found.items():
            if torch.is_grad_enabled() and not is_constant(leaf):
                raise ValueError(
                    f"prepared: {name} is differentiated or mapped here, but constant in what was prepared; solve "
                    "without prepared="
                )
            if not _same(leaf, self.data[name]):
                raise ValueError(f"prepared: {name} is not what it was made from; prepare anew")


def _same(one: Tensor, two: Tensor) -> bool:
    kinds = [(t.shape, t.dtype, t.device) for t in (one, two)]
    return kinds[0] == kinds[1] and torch.equal(one, two)


def prepare(map: FixedPointMap, problem: Any) -> Prepared:
    """Prepare what all problems with the same shared leaves need, once: for `solve(..., prepared=)`.

    Args:
        map: the map that will solve them.
        problem: a batch of its problems, or one.

    Raises:
        ValueError: the problem shares nothing that this map could prepare.
    """
    if pytrees.batch_size(problem, map.ranks) is None:
        raise ValueError("problem: expected a batch (of one, say): a single one does not tell what others would share")
    with torch.no_grad():
        found = prepared_for(map, problem)
    if found is None:
        raise ValueError(
            f"problem: {type(map).__name__} has nothing to prepare for it; only what a batch shares is prepared, here "
            f"{_listed(_shared(map, problem))}"
        )
    return found


def prepared_for(map: FixedPointMap, problem: Any) -> Prepared | None:
    """`prepare`, None where there is nothing to prepare."""
    shared = map.prepare(problem)
    if shared is None:
        return None
    return Prepared(_maker(map), {n: t.detach().clone() for n, t in _shared(map, problem).items()}, shared)


def _maker(map: FixedPointMap) -> tuple[Any, ...]:
    return type(map), map.signature, map.built_with


def _shared(map: FixedPointMap, problem: Any) -> dict[str, Tensor]:
    """The leaves that the batch shares."""
    leaves = pytrees.tensors(problem)
    return {name: t for name, t in leaves.items() if not pytrees.is_row(name, t, map.ranks)}


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "nothing"
