"""A product of cones in SCS's row order; all equal blocks are projected in one operation."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maps.cones.box import Box
from maps.cones.composite.specification import ConeSpec, blocks, checked_spec
from maps.cones.cone import Cone


class Run(NamedTuple):
    """Equal blocks one after the other."""

    cone: Cone
    start: int
    """First row."""
    blocks: int

    @property
    def stop(self) -> int:
        """One past the last row."""
        return self.start + self.blocks * self.cone.dim


class Group(NamedTuple):
    """All equal blocks, wherever they are."""

    cone: Cone
    rows: slice | Tensor
    """A slice where they follow each other, else an index."""
    blocks: int

    def of(self, z: Tensor) -> Tensor:
        """(B, m) -> (B, blocks * k)."""
        return z[:, self.rows] if isinstance(self.rows, slice) else z.index_select(1, self.rows.to(z.device))


class ProductCone(Cone):
    """K = K_1 x ... x K_r.

    Args:
        spec: what `scs` calls the cone; missing keys are empty. In row order:

            - "z", "l": rows of the zero cone and of the nonnegative orthant;
            - "bu", "bl": upper and lower bounds of one `Box` (a row for its t, then one for each bound);
            - "q": lengths of second-order cones;
            - "s": orders k of positive semidefinite matrices (k (k + 1) / 2 rows each, see `PSD`);
            - "ep", "ed": numbers of exponential cones and of their duals (3 rows each);
            - "p": exponents of power cones (3 rows each), negative for duals;
            - then cones registered in `fixedpoint.cones`, sorted by name: for each name a list with the arguments of
              each cone, such as {"nuclear-norm": [[30, 3]]}.

    Raises:
        ValueError: an unknown key, or a value that does not fit. Messages begin with "cones".
    """

    def __init__(self, spec: ConeSpec) -> None:
        self.spec: dict[str, Any] = checked_spec(spec)
        """The keys that are not empty, in row order; JSON-able."""
        self.runs: list[Run] = []
        """Equal blocks that follow each other, in row order."""
        found: dict[Hashable, list[Run]] = {}
        row = 0
        for kind, equal in groupby(blocks(self.spec), lambda block: block.kind):
            first, *rest = equal
            run = Run(first.cone, row, first.number + sum(block.number for block in rest))
            self.runs.append(run)
            found.setdefault(kind, []).append(run)
            row = run.stop
        if sum(run.blocks for run in self.runs if isinstance(run.cone, Box)) > 1:
            raise ValueError("cones: expected at most one box, whose bounds are scaled with the data")
        super().__init__(row)
        self.hint = "s lists orders k, and such a block has k (k + 1) / 2 rows" if "s" in self.spec else ""
        self.groups = [_group(runs) for runs in found.values()]
        """Equal blocks together."""
        self._order = None if len(found) == len(self.runs) else _order(found.values())

    @classmethod
    def examples(cls) -> list[Cone]:
        """Blocks of several kinds, equal blocks apart from each other, and none of either."""
        return [cls({"z": 1, "l": 1, "bu": [1.0], "bl": [-1.0]}), cls({"q": [2, 3, 2]}), cls({"s": [1, 2, 1], "ed": 1})]

    @property
    def equalities(self) -> int:
        """Rows of the zero cone; they come first."""
        return self.spec.get("z", 0)

    @cached_property
    def inequalities(self) -> ProductCone:
        """The product without the zero cone."""
        return ProductCone({key: value for key, value in self.spec.items() if key != "z"}) if self.equalities else self

    @property
    def box(self) -> Box | None:
        """The box cone, if there is one."""
        return next((run.cone for run in self.runs if isinstance(run.cone, Box)), None)

    def rescaled(self, d: Tensor) -> Tensor | None:
        """(B, m) positive row scalings -> (B, 2, k) bounds of the scaled box cone, for `project`; None without one."""
        return next(
            (run.cone.rescaled(d[:, run.start : run.stop]) for run in self.runs if isinstance(run.cone, Box)), None
        )

    def project(self, z: Tensor, bounds: Tensor | None = None) -> Tensor:
        """(B, m) -> (B, m), block by block; `bounds` (B, 2, k) replaces those of the box cone."""
        return self._blockwise(z, "project", bounds)

    def project_dual(self, z: Tensor, bounds: Tensor | None = None) -> Tensor:
        """(B, m) -> (B, m), block by block; `bounds` as for `project`."""
        return self._blockwise(z, "project_dual", bounds)

    def _blockwise(self, z: Tensor, method: str, bounds: Tensor | None) -> Tensor:
        parts = []
        for group in self.groups:
            rows, blocks, dim = group.of(z), group.blocks, group.cone.dim
            each = rows if blocks == 1 else rows.reshape(len(z) * blocks, dim)
            project = getattr(group.cone, method)
            p = project(each, bounds) if isinstance(group.cone, Box) else project(each)
            parts.append(p if blocks == 1 else p.reshape(len(z), blocks * dim))
        return self._joined(parts, z)

    def share_within_blocks(self, d: Tensor, reduction: str, *, box: bool = False) -> Tensor:
        """(B, m) row scalings made equal inside every block that is not separable.

        Args:
            d: (B, m).
            reduction: "max" or "mean" of the block.
            box: the same for the rows of the box cone, whose rows may be scaled only if its bounds are too.
        """
        parts = []
        for group in self.groups:
            each = group.of(d).unflatten(1, (group.blocks, group.cone.dim))
            if not group.cone.separable or (box and isinstance(group.cone, Box)):
                one = each.amax(2, keepdim=True) if reduction == "max" else each.mean(2, keepdim=True)
                each = one.expand_as(each)
            parts.append(each.flatten(1))
        return self._joined(parts, d)

    def _joined(self, parts: list[Tensor], empty: Tensor) -> Tensor:
        """The groups' rows in row order."""
        if not parts:
            return empty
        joined = torch.cat(parts, dim=1)
        return joined if self._order is None else joined.index_select(1, self._order.to(joined.device))


def _rows(runs: list[Run]) -> Tensor:
    return torch.cat([torch.arange(run.start, run.stop, device="cpu") for run in runs])


def _group(runs: list[Run]) -> Group:
    first, *rest = runs
    rows = _rows(runs) if rest else slice(first.start, first.stop)
    return Group(first.cone, rows, sum(run.blocks for run in runs))


def _order(groups: Any) -> Tensor:
    """Where each row is once the groups are joined."""
    return torch.argsort(torch.cat([_rows(runs) for runs in groups]))
