"""The laws of maps about batches: every row on its own, whatever its neighbours are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fixedpoint.checks.compare import clone, with_first
from fixedpoint.checks.maps.case import COUPLED, MapCase, map_law
from fixedpoint.checks.report import Violation
from fixedpoint.checks.specimen import Plain
from fixedpoint.context import Context, rows, select_rows
from fixedpoint.solution import Status
from fixedpoint.solve.front import solve
from fixedpoint.tensors import pytrees


@map_law("rows-independent")
def rows_independent(case: MapCase) -> None:
    """Row i of a result depends on row i of the inputs only: bit for bit at a fixed batch."""
    before = clone(case.everything(case.x, case.context))
    others: tuple[tuple[str, Tensor], ...] = tuple(
        (f"{value:g}", torch.full_like(case.x[:1], value)) for value in (torch.nan, 1e30, 0.0)
    )
    for what, row in (*others, ("its negative", -case.x[:1])):
        x = torch.cat([row, case.x[1:]])
        case.require_same(before, _survive(case, x, case.context, what), 0, f"row 0 of x was set to {what}")

    poisoned = pytrees.transform(lambda t: with_first(t, torch.nan), rows(case.context))
    context = case.context._replace(rows=poisoned) if isinstance(case.context, Context) else poisoned
    case.require_same(before, _survive(case, case.x, context, "NaN"), 0, "row 0 of the context's rows was set to NaN")

    for spared in range(case.batch):
        index = torch.arange(case.batch)
        index[spared] = (spared + 1) % case.batch
        after = case.everything(case.x, case.map.setup(case.taken(index)))
        why = f"the problem of row {spared} was replaced by that of row {int(index[spared])}"
        case.require_same(before, after, spared, why)

    order = torch.arange(case.batch).roll(1)
    expected = {name: t[order] for name, t in before.items()}
    permuted = case.everything(case.x[order], case.map.setup(case.taken(order)))
    case.require_close(expected, permuted, f"when the instances are permuted: {COUPLED}")


def _survive(case: MapCase, x: Tensor, context: Any, what: str) -> dict[str, Tensor]:
    try:
        return case.everything(x, context)
    except Exception as error:
        raise Violation(
            f"with {what} in row 0 the map raises {type(error).__name__}: {error} - one diverged instance would end "
            "the solve of all others; mask such rows"
        ) from error


@map_law("batch-size")
def batch_size(case: MapCase) -> None:
    """A batch gives what its instances give one by one, to working precision."""
    whole = case.everything(case.x, case.context)
    for row in range(min(case.batch, 4)):
        index = torch.tensor([row])
        alone = case.everything(case.x[index], case.map.setup(case.taken(index)))
        expected = {name: t[index] for name, t in whole.items()}
        case.require_close(expected, alone, f"when instance {row} is computed alone: {COUPLED}")


@map_law("select-rows")
def selected(case: MapCase) -> None:
    """A context with some of its rows taken gives those rows."""
    index = torch.tensor([2, 0])
    taken = case.everything(case.x[index], select_rows(case.context, index))
    expected = {name: t[index] for name, t in case.everything(case.x, case.context).items()}
    case.require_close(
        expected,
        taken,
        "after select_rows: something with a row per instance is kept in `shared`, or in the map itself?",
    )


@map_law("vmap")
def vmapped(case: MapCase) -> None:
    """The batched map equals torch.func.vmap of the map on batches of one."""
    tree = rows(case.context)

    def one(x: Tensor, values: dict[str, Tensor]) -> Tensor:
        taken = pytrees.replace(tree, {name: t.unsqueeze(0) for name, t in values.items()})
        context = case.context._replace(rows=taken) if isinstance(case.context, Context) else taken
        return case.map.forward(case.map.retract(x.unsqueeze(0), context), context).squeeze(0)

    try:
        mapped = torch.func.vmap(one)(case.x, pytrees.tensors(tree))
    except Exception as error:
        raise Violation(
            f"torch.func.vmap raises {type(error).__name__}: {error} (in-place writes, boolean indexing, .item(), "
            "`if tensor`, or an autograd.Function without a vmap rule?)"
        ) from error
    case.require_close({"forward": case.step(case.x)}, {"forward": mapped}, f"under torch.func.vmap: {COUPLED}")


@map_law("faults")
def faults(case: MapCase) -> None:
    """Usable data has no faults; an unusable instance, which `setup` never sees, is marked and touches no other."""
    for message, bad in case.map.faults(case.problem).items():
        if tuple(bad.shape) != (case.batch,) or bad.dtype != torch.bool:
            raise Violation(f"faults ({message}): expected ({case.batch},) bool, got {bad.dtype} {tuple(bad.shape)}")
        if bool(bad.any()):
            raise Violation(f"faults ({message}) accuse instances of the problem that was given as good")
    name = next((n for n, t in case.parts.items() if pytrees.is_row(n, t, case.map.ranks)), None)
    if name is None:
        return
    poisoned = pytrees.replace(case.problem, {name: with_first(case.parts[name], torch.nan)})
    good, marked = (
        solve(case.map, problem, Plain(), tolerance=0, max_evaluations=3, on_invalid="mark")
        for problem in (case.problem, poisoned)
    )
    if int(marked.status[0]) != Status.INVALID:
        raise Violation(f"an instance with NaN in {name} ends {marked.statuses[0].name}, not INVALID")
    case.require_same({"solve": good.x}, {"solve": marked.x}, 0, f"{name} of row 0 was set to NaN")
