"""Backends are found by name and asked for what they can; nobody else knows which there are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import maps.scs
from maps.scs import SCS, ConeProgram, linear_systems, solve
from maps.scs.linear_systems import KktMatrix, LinearSolver
from maps.scs.linear_systems.registry import SOLVERS
from tests.maps.scs.linear_systems.eigen_backend import SpectralSolver
from tests.maps.scs.linear_systems.factored import factor
from tests.maps.scs.programs import data

HOME = Path(maps.scs.__file__).parent


@pytest.fixture
def spectral() -> Iterator[None]:
    linear_systems.register(SpectralSolver())
    yield
    del SOLVERS["spectral"]


@pytest.mark.parametrize("normalize", [True, "shared", False])
def test_a_backend_of_ones_own_is_one_file_and_one_line(spectral: None, normalize: bool | str) -> None:
    found, cones = data("QP", 1)
    b = found["b"] * np.linspace(0.5, 1.5, 3)[:, None]
    program = ConeProgram(found["A"], b, found["c"], found["P"], cones)
    one, two = (
        solve(program, normalize=normalize, adaptive_scale=False, linear_solver=name) for name in ("dense", "spectral")
    )
    assert one.converged.all()
    assert (one.evaluations == two.evaluations).all()
    assert np.abs(one.x - two.x).max() < 1e-7
    assert program.batch == 3
    with pytest.raises(ValueError, match=r'^eliminate: not with linear_solver="spectral", use "auto"$'):
        SCS.of(program, eliminate=True, linear_solver="spectral")
    with pytest.raises(ValueError, match="'spectral' is there already"):
        linear_systems.register(SpectralSolver())


def test_a_name_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"^linear_solver: expected one of auto, .*dense.*, got 'spectral'$"):
        SCS(3, {"l": 3}, linear_solver="spectral")


@pytest.mark.parametrize("name", [name for name, solver in SOLVERS.items() if solver.on_host])
def test_what_works_on_the_host_refuses_another_device(name: str) -> None:
    A = maps.scs.SparseMatrix.of(np_sparse())
    elsewhere = maps.scs.SparseMatrix(A.values.to("meta"), A.pattern)
    with pytest.raises(
        ValueError, match=rf'^linear_solver: "{name}" works in the memory of the CPU, but .* is on meta'
    ):
        factor(name, elsewhere, None, torch.ones(4, device="meta"), 0.1)


def np_sparse() -> object:
    from scipy import sparse

    return sparse.eye_array(4, format="csr")


def outside() -> Iterator[tuple[str, ast.AST]]:
    """All nodes of the map's sources but those of the backends."""
    for path in HOME.rglob("*.py"):
        if "linear_systems" not in path.parts:
            yield from ((str(path.relative_to(HOME)), node) for node in ast.walk(ast.parse(path.read_text())))


def test_no_backend_is_known_by_name_elsewhere() -> None:
    kinds = {*SOLVERS} - {"dense", "sparse"}  # these two are the layouts too
    named = [where for where, node in outside() if isinstance(node, ast.Constant) and node.value in kinds]
    compared = [
        where
        for where, node in outside()
        if isinstance(node, ast.Compare)
        and any(isinstance(c, ast.Constant) and c.value in SOLVERS for c in node.comparators)
        and "layout" not in ast.unparse(node)
    ]
    assert not named + compared


def test_no_system_is_known_by_its_class_elsewhere() -> None:
    modules = [
        where for where, node in outside() if isinstance(node, ast.ImportFrom) and _of_backend(node.module or "")
    ]
    assert not modules


def _of_backend(module: str) -> bool:
    home = "maps.scs.linear_systems."
    return module.startswith(home) and module not in (f"{home}base", f"{home}registry")


def test_the_first_that_suits_is_taken_and_something_always_suits() -> None:
    pattern = maps.scs.SparseMatrix.of(np_sparse()).pattern
    assert linear_systems.choose("auto", pattern, None, 10**9).name == "cg"
    assert isinstance(linear_systems.choose("dense", pattern, None, 1), LinearSolver)
    assert KktMatrix(torch.zeros(1, 1), None, torch.ones(1), 0.1).device == torch.device("cpu")
