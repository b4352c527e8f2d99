"""The linear system of every SCS step: K [p; q] = [h; k] with K = [[P + rho_x I, A'], [A, -R_y]].

Four ways to solve it behind one method, `solve(right) -> solution`: `dense` factors the whole batch; `condensed` first
eliminates what does not hang together, of a sparse K; `sparse` lets SuperLU factor one matrix for the batch (or one for
each instance); `conjugate_gradients` factors nothing. Each is differentiable with respect to the matrices and the right
side: the first through torch (`condensed` hands over to it), the others by a step of refinement whose products torch
sees, around solves that are constants (`constant`).
"""

from maps.scs.linear_systems.choice import KINDS, LinearSystem, choose, factor
from maps.scs.linear_systems.dense import FactorizationError

__all__ = ["KINDS", "FactorizationError", "LinearSystem", "choose", "factor"]
