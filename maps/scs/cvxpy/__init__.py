"""Our conic solver and CVXPY: as a solver inside it, and whole batches of one parametrised problem at a time.

Imported only by who asks for it, since it loads CVXPY.
"""

from maps.scs.cvxpy.family import CvxpyFamily
from maps.scs.cvxpy.solver import FixedPointSolver

__all__ = ["CvxpyFamily", "FixedPointSolver"]
