"""The paper's problems: which family in which setting, and what is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks import store
from fixedpoint.experiments.comparison import compare
from fixedpoint.plugins.registry import families
from fixedpoint.protocol import ProblemFamily

RESULTS = store.RESULTS / "paper"
"""A folder for each problem: `records.jsonl`, `training.jsonl` and pictures."""
INSTANCES = 256
"""Held-out instances."""
SEED = 0


@dataclass(frozen=True)
class PaperProblem:
    """One experiment of the paper."""

    name: str
    family: str
    setting: str | None
    """Of the family; None: its defaults are the paper's."""
    steps: int
    """Evaluations of the map."""
    marks: tuple[int, ...]
    """Evaluations that the tables show."""
    plain: str
    """What the plain iteration is called."""
    parts: tuple[str, ...]
    """Names of the tensors that make up an output; they are drawn one row each."""

    def bound(self) -> ProblemFamily:
        """The family with its map in the paper's setting."""
        found = families.create(self.family, **self.options())
        assert isinstance(found, ProblemFamily)
        return found

    def options(self) -> dict[str, Any]:
        """Constructor arguments of the family."""
        return compare.setting_options(self.family, self.setting)

    @property
    def where(self) -> str:
        """Folder of its shipped weights: FAMILY or FAMILY.SETTING."""
        return compare.label(self.family, self.setting)

    @property
    def conic(self) -> bool:
        """Whether it is a cone program, with primal and dual residuals and a KKT error."""
        return self.parts == ("x", "y", "s")


_CONIC: dict[str, Any] = {"setting": "paper", "steps": 50, "marks": (5, 10, 20, 50), "plain": "SCS"}

PROBLEMS = {
    problem.name: problem
    for problem in (
        PaperProblem("lasso", "lasso", parts=("x", "y", "s"), **_CONIC),
        PaperProblem("robust-pca", "robust-pca", parts=("x", "y", "s"), **_CONIC),
        PaperProblem("robust-kalman", "robust-kalman", parts=("x", "y", "s"), **_CONIC),
        PaperProblem("elastic-net", "elastic-net", None, 25, (5, 10, 20, 25), "ISTA", ("x",)),
    )
}
