"""The linear system of every SCS step: K [p; q] = [h; k] with K = [[P + rho_x I, A'], [A, -R_y]].

Backends behind one interface (`base`), chosen by name or by what suits (`registry`): `dense` factors the whole batch;
`condensed` first eliminates what does not hang together, of a sparse K; `sparse` lets SuperLU factor one matrix for the
batch (or one for each instance); `conjugate_gradients` factors nothing. Each is differentiable with respect to the
matrices and the right side: the first through torch (`condensed` hands over to it), the others by a step of refinement
whose products torch sees, around solves that are constants (`kkt`).
"""

from maps.scs.linear_systems.base import FactorizationError, KktMatrix, LinearSolver, LinearSystem
from maps.scs.linear_systems.registry import can_eliminate, choose, factor, names, register

__all__ = [
    "FactorizationError",
    "KktMatrix",
    "LinearSolver",
    "LinearSystem",
    "can_eliminate",
    "choose",
    "factor",
    "names",
    "register",
]
