"""Which CVXPY problems can be compiled once for all parameter values; those that cannot are told why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cvxpy as cp

REMEDY = (
    "introduce a parameter of its own for a product or a function of parameters and compute its value outside, or a "
    "variable that an equality sets to the affine expression in parameters (`problem.is_dcp(dpp=True)` tests it)"
)


def check(problem: Any, parameters: Sequence[Any]) -> None:
    """Raise unless CVXPY can compile the problem with these parameters.

    Raises:
        TypeError: no `cvxpy.Problem`, or something that is no `cvxpy.Parameter`.
        ValueError: parameters that are not exactly the problem's, or have no entries; no variables; integer or complex
            leaves; a problem that is not convex, or not DPP: the message names the smallest expressions that are not.
    """
    if not isinstance(problem, cp.Problem):
        raise TypeError(f"problem: expected a cvxpy.Problem, got {problem!r}")
    wrong = (
        [p for p in parameters if not isinstance(p, cp.Parameter)] if isinstance(parameters, Sequence) else [parameters]
    )
    if wrong:
        raise TypeError(f"parameters: expected a list of cvxpy.Parameter, got {wrong[0]!r}")
    _check_parameters(problem, parameters)
    if not any(variable.size for variable in problem.variables()):
        raise ValueError("problem: expected one with variables; without any there is nothing to solve for")
    leaves = [*problem.variables(), *parameters]
    if complicated := [leaf.name() for leaf in leaves if leaf.is_complex()]:
        raise ValueError(f"problem: expected real variables and parameters, but {_listed(complicated)} may be complex")
    if problem.is_mixed_integer():
        whole = [v.name() for v in problem.variables() if v.attributes["boolean"] or v.attributes["integer"]]
        raise ValueError(f"problem: expected continuous variables, but {_listed(whole)} must be whole numbers")
    if not problem.is_dcp():
        culprits = _listed(_smallest(problem, lambda part: part.is_dcp()))
        raise ValueError(f"problem: expected a convex one by CVXPY's rules (DCP); these parts are not: {culprits}")
    if not _dpp(problem):
        culprits = _listed(_smallest(problem, _dpp))
        raise ValueError(
            f"problem: expected one that is affine in its parameters (DPP); not so are: {culprits}; {REMEDY}"
        )


def _check_parameters(problem: Any, parameters: Sequence[Any]) -> None:
    own = {parameter.id: parameter for parameter in problem.parameters()}
    if not own:
        raise ValueError(
            "problem: expected one with parameters; one without has one solution, for problem.solve to find"
        )
    given = [parameter.id for parameter in parameters]
    if twice := [p.name() for i, p in enumerate(parameters) if p.id in given[:i]]:
        raise ValueError(f"parameters: {_listed(twice)} given twice")
    if foreign := [p.name() for p in parameters if p.id not in own]:
        raise ValueError(
            f"parameters: {_listed(foreign)} not in the problem, whose parameters are {_names(own.values())}"
        )
    if missing := [p.name() for i, p in own.items() if i not in given]:
        raise ValueError(f"parameters: {_listed(missing)} missing; the problem's parameters are {_names(own.values())}")
    if empty := [f"{p.name()} has shape {p.shape}" for p in parameters if not p.size]:
        raise ValueError(f"parameters: expected at least one entry in each, but {_listed(empty)}")


def _dpp(part: Any) -> bool:
    return bool(part.is_dcp(dpp=True))


def _smallest(problem: Any, good: Callable[[Any], bool]) -> list[str]:
    """The smallest parts of the objective and the constraints that are not good, as text."""

    def walk(part: Any) -> Iterator[str]:
        deeper = [child for child in part.args if not good(child)]
        if not deeper:
            yield str(part)
        for child in deeper:
            yield from walk(child)

    return [text for part in (problem.objective, *problem.constraints) if not good(part) for text in walk(part)]


def _names(parameters: Any) -> str:
    return ", ".join(parameter.name() for parameter in parameters)


def _listed(texts: Sequence[str], most: int = 4, length: int = 120) -> str:
    """The texts side by side, cut where there are many or they are long."""
    distinct = list(dict.fromkeys(text if len(text) <= length else f"{text[:length]}..." for text in texts))
    more = f" and {len(distinct) - most} more" if len(distinct) > most else ""
    return ", ".join(distinct[:most]) + more
