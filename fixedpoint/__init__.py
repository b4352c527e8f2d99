"""Classical and learned acceleration of fixed-point iterations, for any map.

The protocols are in `protocol`, the one loop in `iterate`, its front door in `solving`; `maps`, `accelerators`,
`cones` and `families` are the registries of plug-ins.
"""

from fixedpoint.adjoint import AdjointWarning
from fixedpoint.checkpoint import load, save
from fixedpoint.context import Context, Reuse
from fixedpoint.iterate import unroll
from fixedpoint.protocol import Accelerator, FixedPointMap, ProblemFamily
from fixedpoint.registry import Registry, RegistryError, accelerators, cones, families, maps
from fixedpoint.report.bar import ProgressBar
from fixedpoint.settings import Choice, Range
from fixedpoint.signature import Signature
from fixedpoint.solution import Adaptation, Assessment, Evaluation, Progress, Solution, Status, Trajectory
from fixedpoint.solving import Truncated, solve
from fixedpoint.training import train

__version__ = "0.1.0"

__all__ = [
    "Accelerator",
    "Adaptation",
    "AdjointWarning",
    "Assessment",
    "Choice",
    "Context",
    "Evaluation",
    "FixedPointMap",
    "ProblemFamily",
    "Progress",
    "ProgressBar",
    "Range",
    "Registry",
    "RegistryError",
    "Reuse",
    "Signature",
    "Solution",
    "Status",
    "Trajectory",
    "Truncated",
    "accelerators",
    "cones",
    "families",
    "load",
    "maps",
    "save",
    "solve",
    "train",
    "unroll",
]
