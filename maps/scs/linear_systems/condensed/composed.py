"""All rounds of an elimination, and the block, composed to one sparse matrix where the batch shares K."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from maps.scs.linear_systems.condensed.ordering import Plan
from maps.scs.linear_systems.kkt import host
from maps.scs.problem.products import blockwise
from maps.scs.problem.sparse_matrix import SparseMatrix, to_dtype


class ComposedOperator:
    """K^{-1} right with one K: all rounds, and the block, composed to a sparse matrix and its transpose."""

    def __init__(self, found: Plan, factors: tuple[Tensor, ...]) -> None:
        from scipy import sparse

        def eliminate(pivot: np.ndarray, other: np.ndarray, multiplier: np.ndarray) -> Any:
            part = sparse.csr_matrix((-multiplier, (other, pivot)), shape=(found.size, found.size))
            return sparse.eye_array(found.size, format="csr") + part

        *rounds, multiplier, reciprocal, core_inverse = (t[0].detach().numpy() for t in factors)
        forward, scale = sparse.eye_array(found.size, format="csr"), np.ones(found.size)
        for step, edges, inverse in zip(found.rounds, rounds[::2], rounds[1::2], strict=True):
            forward = eliminate(step.pivots[step.edge_pivot], step.edge_other, edges) @ forward
            scale[step.pivots] = inverse
        block, core = np.meshgrid(found.block, found.core, indexing="ij")
        forward = eliminate(block.ravel(), core.ravel(), multiplier.ravel()) @ forward
        scale[found.block] = reciprocal
        order = np.concatenate([np.setdiff1d(np.arange(found.size), found.core), found.core])
        self.core = len(found.core)
        self._parts = {
            "forward": forward.tocsr()[order],
            "backward": (forward.T @ sparse.diags_array(scale)).tocsr()[:, order],
            "inverse": core_inverse,
        }
        self._cast: dict[Any, dict[str, Any]] = {}
        """The parts in the dtypes that were asked for."""

    def refine(self, A: SparseMatrix, P: SparseMatrix | None, R_y: Tensor, rho_x: float) -> None:
        """Let a step of refinement follow from now on."""
        exact = to_dtype(A, torch.float64), None if P is None else to_dtype(P, torch.float64)
        self._parts["K"] = host(*exact, R_y.double(), rho_x).tocsr()
        self._cast = {}

    @property
    def refined(self) -> bool:
        """Whether it does."""
        return "K" in self._parts

    def __call__(self, right: Tensor) -> Tensor:
        """(B, n + m)."""
        return blockwise(self._solve, right.detach())

    def _solve(self, right: Tensor) -> Tensor:
        target = right.mT.contiguous().numpy()
        parts = self._cast.get(target.dtype)
        if parts is None:
            parts = self._cast[target.dtype] = {name: part.astype(target.dtype) for name, part in self._parts.items()}
        x = self._once(parts, target)
        if "K" in parts:
            x += self._once(parts, target - parts["K"] @ x)
        return torch.from_numpy(x).mT

    def _once(self, parts: dict[str, Any], target: np.ndarray) -> np.ndarray:
        """(n + m, B), the layout that sparse products are fast in; SciPy's, as torch's stall where cores are shared."""
        x = parts["forward"] @ target
        if self.core:
            centre = torch.from_numpy(x[-self.core :])
            torch.mm(torch.from_numpy(parts["inverse"]), centre.clone(), out=centre)
        return parts["backward"] @ x
