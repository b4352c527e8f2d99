"""Classical and learned acceleration of fixed-point iterations, for any map.

The protocols are in `protocol`, the one loop in `iterate`, its front door in `solving`; `maps`, `accelerators`,
`cones` and `families` are the registries of plug-ins.
"""

from fixedpoint.context import Context
from fixedpoint.experiments.report.bar import ProgressBar
from fixedpoint.gradients.truncated import Truncated
from fixedpoint.gradients.warnings import AdjointWarning
from fixedpoint.learning.training import train
from fixedpoint.plugins.checkpoint import load, save
from fixedpoint.plugins.registry import Registry, RegistryError, accelerators, cones, families, maps
from fixedpoint.protocol import Accelerator, FixedPointMap, ProblemFamily
from fixedpoint.search_space import Choice, Range
from fixedpoint.signature import Signature
from fixedpoint.solution import Adaptation, Assessment, Check, Evaluation, Progress, Solution, Status, Trajectory
from fixedpoint.solve.front import solve
from fixedpoint.solve.loop import unroll
from fixedpoint.solve.prepared import Prepared, prepare

__version__ = "0.1.0"

__all__ = [
    "Accelerator",
    "Adaptation",
    "AdjointWarning",
    "Assessment",
    "Check",
    "Choice",
    "Context",
    "Evaluation",
    "FixedPointMap",
    "Prepared",
    "ProblemFamily",
    "Progress",
    "ProgressBar",
    "Range",
    "Registry",
    "RegistryError",
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
    "prepare",
    "save",
    "solve",
    "train",
    "unroll",
]
