"""Solutions, shown and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from fixedpoint.experiments.report import solutions
from tests.experiments.report.rows import printed


class Pair(NamedTuple):
    x: Tensor
    error: Tensor


def solution(batch: int, output: Any = None) -> fp.Solution:
    ones = torch.ones(batch, 2, dtype=torch.float64)
    status = torch.full((batch,), fp.Status.CONVERGED)
    status[0] = fp.Status.DIVERGED
    return fp.Solution(ones, 2 * ones if output is None else output, ones[:, 0] / 3, status, 7 * status)


def test_the_first_instances_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(solutions.table(solution(25), torch.full((25,), 0.5), "kkt", 0.05), capsys)
    lines = text.splitlines()
    assert lines[0].split() == ["instance", "status", "evaluations", "residual", "KKT", "error"]
    assert lines[2].split() == ["0", "DIVERGED", "28", "3.33e-01", "5.00e-01"]
    assert lines[21].split()[0] == "19"
    assert lines[-1] == "24 of 25 converged; 2 ms per instance in a batch of 25; the first 20 are shown"
    assert "KKT" not in printed(solutions.table(solution(2), torch.zeros(2), "residual", 0.1), capsys)


def test_solutions_are_saved_where_they_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "new" / "solution.v1"
    solutions.save(path, solution(2), torch.tensor([0.1, 0.2]))
    assert [p.name for p in path.parent.iterdir()] == ["solution.v1"]
    saved = np.load(path, allow_pickle=False)
    assert set(saved) == {"x", "status", "evaluations", "residual", "error", "output"}
    assert saved["output"].tolist() == [[2, 2], [2, 2]]
    assert saved["status"].tolist() == [4, 1]


def test_parts_of_an_output_never_hide_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "solution.npz"
    solutions.save(path, solution(2, Pair(torch.zeros(2, 3), torch.ones(2))), torch.tensor([0.1, 0.2]))
    saved = np.load(path, allow_pickle=False)
    assert saved["output_x"].shape == (2, 3)
    assert saved["output_error"].tolist() == [1, 1]
    assert saved["x"].shape == (2, 2)
    assert saved["error"].tolist() == pytest.approx([0.1, 0.2])
