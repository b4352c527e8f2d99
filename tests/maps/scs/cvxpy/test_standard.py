"""CVXPY's own standard problems, at the accuracy that its tests ask of SCS.

They are found by name, so that what a new CVXPY adds is run too. CVXPY runs SCS with eps 1e-5 or 1e-6 here; the
defaults of our solver are held to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cvxpy as cp
import pytest
from cvxpy.tests import solver_test_helpers

from maps.scs.cvxpy import FixedPointSolver
from tests.maps.scs.cvxpy.test_solver import REFUSED

EXPECTED_FAILURES: dict[str, str] = {"lp_7": "needs the package sdpap (SDPA in extended precision): install it"}
"""What we do not pass, and what would mend it; the scs package does not pass it either."""
if tuple(int(part) for part in cp.__version__.split(".")[:2]) >= (1, 8):  # they asked for less before
    EXPECTED_FAILURES |= dict.fromkeys(
        ("lp_bound_attr", "qp_bound_attr"), "bounds of variables apart from the rows of A: `ConeProgram` must take them"
    )

ASKED: dict[str, dict[str, float]] = {"pcp_3": {"eps_abs": 1e-12, "eps_rel": 1e-12}}
"""Where CVXPY asks more of SCS than our defaults give."""


def standard() -> Iterator[tuple[str, Callable[..., object]]]:
    """(name without "test_", function) of every standard test."""
    for group in vars(solver_test_helpers).values():
        if isinstance(group, type) and group.__name__.startswith("StandardTest"):
            for name in dir(group):
                if name.startswith("test_"):
                    yield name.removeprefix("test_"), getattr(group, name)


STANDARD = dict(standard())
CONTINUOUS = [name for name in STANDARD if not name.startswith("mi_")]


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.xfail(strict=True, reason=EXPECTED_FAILURES[name])] if name in EXPECTED_FAILURES else []


def test_they_are_found() -> None:
    assert len(CONTINUOUS) >= 20
    assert {"lp_1", "qp_0", "socp_1", "sdp_2", "expcone_1", "pcp_1", "exp_soc_1"} <= set(CONTINUOUS)


@pytest.mark.filterwarnings("ignore:.*Defaulting to the SCIPY backend")  # of `sdp_batched`: how CVXPY compiles it
@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in CONTINUOUS])
def test_continuous(name: str) -> None:
    STANDARD[name](solver=FixedPointSolver(**ASKED.get(name, {})))


@pytest.mark.parametrize("name", sorted(STANDARD.keys() - set(CONTINUOUS)))
def test_mixed_integer_is_refused(name: str) -> None:
    with pytest.raises(cp.SolverError, match=REFUSED):
        STANDARD[name](solver=FixedPointSolver())
