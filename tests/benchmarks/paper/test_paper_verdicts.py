"""The sentences of the paper's experiments follow from the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.paper import verdicts
from benchmarks.paper.problems import PaperProblem
from fixedpoint.experiments.evaluation import Record


def row(name: str, kind: str, residual: Sequence[float | None], error: Sequence[float | None]) -> Record:
    def curve(values: Sequence[float | None]) -> dict[str, Any]:
        return {quantile: list(values) for quantile in ("p10", "median", "p90")}

    return {"part": "row", "row": name, "kind": kind, "curves": {"residual": curve(residual), "error": curve(error)}}


THREE = PaperProblem("lasso", "lasso", "paper", 3, (1, 2, 3), "SCS", ("x", "y", "s"))


def test_sentences_follow_from_the_numbers() -> None:
    found = [
        row("plain", "plain", [4.0, 4.0, 1.0], [1.0, None, 1.0]),
        row("AA-II", "classical", [2.0, 0.5, 1.0], [1.0, 1.0, 1.0]),
        row("GRU", "neural", [1.0, 1.0, 1.0], [0.5, 0.5, None]),
        row("LSTM", "neural", [3.0, 2.0, 1.01], [0.25, 2.0, None]),
    ]
    residual, error = verdicts.sentences(THREE, found)
    assert "at 1, GRU is ahead of SCS (x4.00) and of the best AA, AA-II (x2.00)" in residual
    assert "at 2, GRU is ahead of SCS (x4.00), not ahead of AA-II (x0.50)" in residual
    assert "at 3, GRU is ahead neither of SCS (x1.00) nor of AA-II (x1.00)" in residual
    assert "at 1, LSTM is ahead of SCS (x4.00) and" in error
    assert "at 3, GRU is ahead neither of SCS (x0.00)" in error, "what is lost is behind everything"
    said = verdicts.summary(THREE, found)
    assert said.startswith(
        "fixed-point residual: ahead at 1, not ahead at 2, 3; KKT error: ahead at 1, 2, not ahead at 3"
    )


@pytest.mark.parametrize(("without", "says"), [(8.0, "4 times worse"), (1.0, "2 times better"), (2.0, "the same")])
def test_the_ablation_is_judged_by_its_numbers(without: float, says: str) -> None:
    found = [
        row("plain", "plain", [3.0] * 3, [3.0] * 3),
        row("residual", "ablation", [2.0] * 3, [2.0] * 3),
        row("raw residual", "ablation", [without] * 3, [None] * 3),
    ]
    residual, error = verdicts.ablation(THREE, found, 2)
    assert says in residual
    assert ("is behind SCS" in residual) == (without > 3)
    assert "not finite" in error
    assert verdicts.ablation(THREE, found[:2], 2) == []
