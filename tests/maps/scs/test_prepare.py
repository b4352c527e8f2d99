"""What batches share is scaled and factored once: between chunks, and between solves with what was prepared."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fixedpoint.experiments.evaluation import generator
from maps.scs import ConeProgram, SparseMatrix, linear_systems, prepare, solve
from maps.scs.families.robust_kalman import RobustKalman

STATIC: dict[str, Any] = {"adaptive_scale": False, "scale": 2.0, "tau_factor": 100.0}
SETTINGS: dict[str, Any] = {**STATIC, "eps_abs": 1e-6, "eps_rel": 1e-7}


@pytest.fixture
def factored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the factorizations, as they are made."""
    factor, kinds = linear_systems.factor, []

    def counted(solver: Any, *arguments: Any, **options: Any) -> Any:
        kinds.append(solver.name)
        return factor(solver, *arguments, **options)

    monkeypatch.setattr(linear_systems, "factor", counted)
    return kinds


def kalman(batch: int = 6, seed: int = 0) -> ConeProgram:
    return RobustKalman().sample(batch, generator=generator(seed, "test"))


@pytest.mark.parametrize("normalize", ["shared", False])
def test_a_factor_is_made_once(normalize: str | bool, factored: list[str]) -> None:
    programs = [kalman(seed=seed) for seed in range(3)]
    prepared = prepare(programs[0], normalize=normalize, **STATIC)
    again = [solve(program, "anderson-2", normalize=normalize, prepared=prepared, **SETTINGS) for program in programs]
    assert len(factored) == 1
    for program, found in zip(programs, again, strict=True):
        alone = solve(program, "anderson-2", normalize=normalize, **SETTINGS)
        assert torch.equal(found.x, alone.x)
        assert torch.equal(found.evaluations, alone.evaluations)
    factored.clear()
    solve(kalman(), "anderson-2", normalize=normalize, chunk=2, **SETTINGS)
    assert len(factored) == 1


def test_nothing_is_taken_over_that_has_changed(factored: list[str]) -> None:
    program = kalman()
    options: dict[str, Any] = {"normalize": "shared", **SETTINGS}
    prepared = prepare(program, normalize="shared", **STATIC)
    values = program.A.values.clone()
    other = ConeProgram(SparseMatrix(values, program.A.pattern), program.b, program.c, program.P, program.cones)
    solve(other, "anderson-2", prepared=prepared, **options)
    assert len(factored) == 1, "the same numbers"
    places = [0, next(i for i in range(1, len(values)) if values[i] != values[0])]
    values[places] = values[places[::-1]]
    with pytest.raises(ValueError, match=r"^prepared: A\.values is not what it was made from; prepare anew$"):
        solve(other, "anderson-2", prepared=prepared, **options)


@pytest.mark.parametrize(
    "changed", [{"scale": 3.0}, {"linear_solver": "sparse"}, {"precision": "mixed"}, {"alpha": 1.2}]
)
def test_another_setting_is_refused(changed: dict[str, Any]) -> None:
    program = kalman()
    options: dict[str, Any] = {"normalize": "shared", **SETTINGS}
    with pytest.raises(ValueError, match=r"^prepared: it was made by a map of another"):
        solve(program, prepared=prepare(program, normalize="shared", **STATIC), **{**options, **changed})


def test_mixed_precision_has_a_preparation_of_its_own(factored: list[str]) -> None:
    program = kalman()
    options: dict[str, Any] = {
        "normalize": "shared",
        "precision": "mixed",
        **SETTINGS,
        "eps_abs": 1e-3,
        "eps_rel": 1e-3,
    }
    prepared = prepare(program, normalize="shared", precision="mixed", **STATIC)
    found = solve(program, prepared=prepared, **options)
    assert len(factored) == 1
    assert torch.equal(found.x, solve(program, **options).x)


def test_where_matrices_are_an_instances_own_there_is_nothing_to_prepare() -> None:
    with pytest.raises(ValueError, match="has nothing to prepare"):
        prepare(kalman(3), normalize=True)
