"""A prepared batch of problems, and how its instances leave it."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from fixedpoint.tensors import pytrees


class Context(NamedTuple):
    """A prepared batch of problems. What belongs to a row and what the batch shares is declared here, never
    guessed from a shape: `rows` is indexed when finished instances leave the batch, `shared` is left alone.
    """

    rows: Any
    """A pytree (a NamedTuple, say) of batch-first tensors; None entries are allowed."""
    shared: Any = None
    """Anything: a matrix or a factor that all instances use."""
    problem: Any = None
    """The problem it was made from: gradients are taken with respect to its leaves."""


def rows(context: Any) -> Any:
    """The batch-first part of a context: of a `Context` its rows, of anything else all of it."""
    return context.rows if isinstance(context, Context) else context


def select_rows(context: Any, index: Tensor) -> Any:
    """The context of the instances in `index` (int64, (B',)); what is shared stays as it is."""
    taken = pytrees.transform(lambda t: t[index], rows(context))
    return context._replace(rows=taken) if isinstance(context, Context) else taken
