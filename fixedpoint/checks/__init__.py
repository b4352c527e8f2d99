"""Checkers for what users plug in: every law of a map and of an accelerator, as named checks, without pytest.

`check_map(MyMap(), problem)` raises CheckFailed, naming the laws that do not hold and the probable mistakes;
`print(check_accelerator(MyAccelerator(), raise_on_failure=False))` shows them all. A law is a function registered
under its name (`report.Laws`) that raises Violation; the modules below hold one group of laws each.
"""

from fixedpoint.checks.checkers import ACCELERATOR_CHECKS, MAP_CHECKS, check_accelerator, check_map
from fixedpoint.checks.plugins import check_registered_map, families_of
from fixedpoint.checks.report import CheckFailed, CheckResult, Report

__all__ = [
    "ACCELERATOR_CHECKS",
    "MAP_CHECKS",
    "CheckFailed",
    "CheckResult",
    "Report",
    "check_accelerator",
    "check_map",
    "check_registered_map",
    "families_of",
]
