"""The batch product gives what CVXPY gives, entry by entry, for every kind of problem."""

from __future__ import annotations

import subprocess
import sys

import cvxpy as cp
import numpy as np
import pytest
import torch

from maps.scs import SparseMatrix
from maps.scs.cvxpy.canonical import Canonical
from maps.scs.families import robust_kalman
from maps.scs.families.lasso import Lasso
from maps.scs.families.robust_kalman import RobustKalman
from tests.maps.scs.cvxpy.examples import EXAMPLES, draw

CONES = {"z": "zero", "l": "nonneg", "q": "soc", "s": "psd", "ep": "exp", "p": "p3d"}


def tensors(values: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.as_tensor(value).reshape(len(value), -1) for value in values]


@pytest.mark.parametrize("quadratic", [True, False])
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_batch_is_what_cvxpy_gives_for_each_instance(name: str, quadratic: bool) -> None:
    example = draw(name)
    canonical = Canonical.of(example.problem, example.parameters, quadratic=quadratic)
    programs = canonical.program(tensors(example.values))
    offsets = canonical.offset(tensors(example.values)).expand(3, 1)
    for i in range(3):
        example.set(i)
        data, _, inverse = example.problem.get_problem_data("SCS", solver_opts={"use_quad_obj": quadratic})
        mine = {"offset": offsets[i, 0].numpy()}
        for part, rank in (("A", 2), ("b", 1), ("c", 1), ("P", 2)):
            found = getattr(programs, part)
            if found is not None:
                found = found.to_dense() if isinstance(found, SparseMatrix) else found
                mine[part] = (found[i] if found.ndim > rank else found).numpy()
        theirs = {"A": data["A"].toarray(), "b": data["b"], "c": data["c"], "offset": inverse[-1]["offset"]}
        if "P" in data and data["P"].nnz:
            theirs["P"] = data["P"].toarray()
        assert mine.keys() == theirs.keys()
        for part, expected in theirs.items():
            assert np.abs(mine[part] - expected).max(initial=0) <= 1e-15 * np.abs(expected).max(initial=0), part
    given = {key: getattr(data["dims"], attribute) for key, attribute in CONES.items()}
    assert canonical.cones == {key: value for key, value in given.items() if value}


@pytest.mark.parametrize(
    ("name", "varying"),
    [
        ("lasso", {"A", "b", "c"}),
        ("portfolio", {"P", "b", "c", "offset"}),
        ("cone", {"b", "c"}),
        ("semidefinite", {"b", "c"}),
        ("power", {"c"}),
    ],
)
def test_what_depends_on_no_parameter_is_shared(name: str, varying: set[str]) -> None:
    example = draw(name)
    canonical = Canonical.of(example.problem, example.parameters, quadratic=True)
    parts = {part: getattr(canonical, part) for part in ("A", "b", "c", "P", "offset")}
    assert {part for part, found in parts.items() if found is not None and found.uses} == varying
    programs = canonical.program(tensors(example.values))
    ranks = {"A": 2, "b": 1, "c": 1, "P": 2}
    found = {part for part, rank in ranks.items() if (p := getattr(programs, part)) is not None and p.ndim > rank}
    assert found == varying - {"offset"}
    assert canonical.shared == (not varying & {"A", "P"})


def test_values_of_the_user_s_parameters_and_duals_stay_what_they_are() -> None:
    example = draw("portfolio")
    example.set(1)
    example.problem.solve(solver="CLARABEL")
    before = [c.dual_value for c in example.problem.constraints] + [p.value for p in example.parameters]
    Canonical.of(example.problem, example.parameters, quadratic=True)
    after = [c.dual_value for c in example.problem.constraints] + [p.value for p in example.parameters]
    assert all(np.array_equal(one, two) for one, two in zip(before, after, strict=True))
    empty = draw("portfolio")
    Canonical.of(empty.problem, empty.parameters, quadratic=True)
    assert all(parameter.value is None for parameter in empty.parameters)


def test_a_quadratic_objective_without_squares_has_no_P() -> None:
    p, x = cp.Parameter(2), cp.Variable(2)
    assert Canonical.of(cp.Problem(cp.Minimize(p @ x), [x >= 1]), [p], quadratic=True).P is None


@pytest.mark.parametrize("form", ["quadratic", "conic"])
def test_our_lassos_are_what_cvxpy_gives(form: str) -> None:
    """Drawn as they always were; A as a sparse matrix with values per instance."""
    programs = Lasso(form).sample(2, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    X, Y, weight = cp.Parameter((100, 50)), cp.Parameter(100), cp.Parameter(nonneg=True)
    beta = cp.Variable(50)
    squares = cp.sum_squares(X @ beta - Y) if form == "quadratic" else cp.square(cp.norm2(X @ beta - Y))
    problem = cp.Problem(cp.Minimize(squares + weight * cp.norm1(beta)))
    for i in range(2):
        X.value, Y.value, weight.value = Lasso(form)._draw(generator)
        data = problem.get_problem_data("SCS", solver_opts={"use_quad_obj": form == "quadratic"})[0]
        assert isinstance(programs.A, SparseMatrix)
        assert np.array_equal(programs.A.to_dense()[i].numpy(), data["A"].toarray())
        assert np.array_equal(programs.b[i].numpy(), data["b"])
        assert np.array_equal(programs.c[i].numpy(), data["c"])
        assert len(programs.patterns["A"]) == data["A"].nnz


def test_our_kalman_smoothers_are_what_cvxpy_gives() -> None:
    family = RobustKalman("conic")
    program = family.sample(1, generator=torch.Generator().manual_seed(3))
    y = family.measurements(1, generator=torch.Generator().manual_seed(3))[0]
    b = torch.zeros_like(program.b[0])
    slopes = robust_kalman.template("conic").slopes
    for k, value in enumerate(y.mT.flatten()):
        b += value * slopes[k]
    assert torch.allclose(program.b[0], robust_kalman.template("conic").program.b + b, rtol=1e-15, atol=0)
    assert (slopes != 0).sum() == 100, "each measurement is in one equation"


def test_importing_the_families_does_not_load_cvxpy() -> None:
    code = "import sys, maps.scs.families.lasso, maps.scs.families.robust_pca; assert 'cvxpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
