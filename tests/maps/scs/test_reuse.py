"""What batches share is scaled and factored once: between chunks, and between solves with one `Reuse`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fixedpoint as fp
from fixedpoint.experiments.evaluation import generator
from maps.scs import ConeProgram, SparseMatrix, linear_systems, solve
from maps.scs.families.robust_kalman import RobustKalman

SETTINGS: dict[str, Any] = {
    "adaptive_scale": False,
    "scale": 2.0,
    "tau_factor": 100.0,
    "eps_abs": 1e-6,
    "eps_rel": 1e-6,
}


@pytest.fixture
def factored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the factorizations, as they are made."""
    factor, kinds = linear_systems.factor, []

    def counted(kind: str, *arguments: Any, **options: Any) -> Any:
        kinds.append(kind)
        return factor(kind, *arguments, **options)

    monkeypatch.setattr(linear_systems, "factor", counted)
    return kinds


def kalman(batch: int = 6, seed: int = 0) -> ConeProgram:
    return RobustKalman().sample(batch, generator=generator(seed, "test"))


@pytest.mark.parametrize("normalize", ["shared", False])
def test_a_factor_is_made_once(normalize: str | bool, factored: list[str]) -> None:
    reuse, programs = fp.Reuse(), [kalman(seed=seed) for seed in range(3)]
    again = [solve(program, "anderson-2", normalize=normalize, reuse=reuse, **SETTINGS) for program in programs]
    assert factored == ["condensed"]
    for program, found in zip(programs, again, strict=True):
        alone = solve(program, "anderson-2", normalize=normalize, **SETTINGS)
        assert torch.equal(found.x, alone.x)
        assert torch.equal(found.evaluations, alone.evaluations)
    factored.clear()
    solve(kalman(), "anderson-2", normalize=normalize, chunk=2, **SETTINGS)
    assert factored == ["condensed"]


def test_nothing_is_taken_over_that_has_changed(factored: list[str]) -> None:
    reuse, program = fp.Reuse(), kalman()
    options = {"normalize": "shared", "reuse": reuse, **SETTINGS}
    solve(program, "anderson-2", **options)
    values = program.A.values.clone()
    other = ConeProgram(SparseMatrix(values, program.A.pattern), program.b, program.c, program.P, program.cones)
    solve(other, "anderson-2", **options)
    assert len(factored) == 2, "another A"
    solve(other, "anderson-2", **options)
    assert len(factored) == 2, "the same A"
    values.mul_(1.001)
    changed = solve(other, "anderson-2", **options)
    assert len(factored) == 3, "A was changed in place"
    assert torch.equal(changed.x, solve(other, "anderson-2", normalize="shared", **SETTINGS).x)
    factored.clear()
    solve(other, "anderson-2", **{**options, "scale": 3.0})
    solve(other, "anderson-2", **{**options, "scale": 3.0, "precision": "mixed"})
    assert len(factored) >= 2, "another metric, another dtype"


def test_where_matrices_are_an_instances_own_all_is_made_anew(factored: list[str]) -> None:
    reuse, program = fp.Reuse(), kalman(3)
    for _ in range(2):
        found = solve(program, normalize=True, reuse=reuse, eps_abs=1e-4, eps_rel=1e-4)
        assert bool(found.converged.all())
    assert len(factored) >= 2
