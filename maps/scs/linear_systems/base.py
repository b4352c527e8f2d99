"""What a linear system is, and what solves one: the interface of every backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from maps.scs.problem.sparse_matrix import Matrix, Pattern, SparseMatrix

Layout = Literal["dense", "sparse"]


class FactorizationError(ArithmeticError):
    """No factorization of the linear system passed its check, for any instance."""


@dataclass(frozen=True, eq=False)
class KktMatrix:
    """K = [[P + rho_x I, A'], [A, -R_y]], for a batch or once for a shared A and P."""

    A: Matrix
    """(B, m, n), or (m, n) shared; of the backend's layout, like P."""
    P: Matrix | None
    """(B, n, n) or (n, n), like A; None for 0."""
    R_y: Tensor
    """(m,) positive, or (B, m)."""
    rho_x: float
    """Positive."""
    unweighted_rows: int | None = None
    """None, or how many rows in front have an R_y that, like rho_x, is next to nothing."""
    tolerance: float = 0.0
    """What a factor need not be more accurate than."""

    @property
    def device(self) -> torch.device:
        """Of the numbers."""
        return self.R_y.device


class LinearSystem(Protocol):
    """K, ready to be solved with: a NamedTuple whose tensors are batch-first, or have no batch axis when shared."""

    def solve(self, right: Tensor) -> Tensor:
        """(B, n + m) -> (B, n + m)."""

    def restricted(self, first: int) -> Restriction | None:
        """K^{-1} from the unknowns from `first` on to themselves, where that takes less than all of it; else None."""

    @property
    def solves_singly(self) -> bool:
        """Whether few right sides are best solved one by one, rather than by an operator made of many."""


class Restriction(Protocol):
    """What `LinearSystem.restricted` returns, a NamedTuple of batch-first tensors too."""

    def solve(self, right: Tensor) -> Tensor:
        """(B, k) -> (B, k)."""


class LinearSolver(ABC):
    """One way to solve with K; a backend is one file with a subclass, and one line in `registry`."""

    name: ClassVar[str]
    """What `SCS(linear_solver=...)` calls it."""
    layout: ClassVar[Layout]
    """What A and P are: tensors, or `SparseMatrix`."""
    can_eliminate: ClassVar[bool] = False
    """Whether it is accurate where K has `unweighted_rows`, and is close to a singular matrix."""
    on_host: ClassVar[bool] = False
    """Whether it works in the host's memory alone."""

    def suits(self, A: Pattern, P: Pattern | None, copies: int, rights: int | None) -> bool:
        """Whether "auto" takes it, of those that come first in the registry. Default: only who asks for it gets it.

        Args:
            A: pattern of A, (m, n).
            P: pattern of P, (n, n), or None.
            copies: matrices to factor: 1 when the batch shares them, else B.
            rights: right sides that a shared K is for, about; None: many.
        """
        return False

    @abstractmethod
    def factor(self, matrix: KktMatrix) -> LinearSystem:
        """Prepare K; differentiable with respect to its numbers and, in the system, to the right side.

        Raises:
            FactorizationError: no instance's factor reproduced a known solution. Where only some do not, these get
                NaN, and end as DIVERGED.
        """

    def check(self, matrix: KktMatrix) -> None:
        """Refuse numbers that are somewhere else, or of another layout.

        Raises:
            ValueError: a device that this backend cannot work on; names both.
        """
        if self.on_host and matrix.device.type != "cpu":
            raise ValueError(
                f'linear_solver: "{self.name}" works in the memory of the CPU, but the program is on '
                f'{matrix.device}; use "dense" or "cg", or move it'
            )
        for part in (matrix.A, matrix.P):
            assert part is None or isinstance(part, SparseMatrix) == (self.layout == "sparse"), self.name
