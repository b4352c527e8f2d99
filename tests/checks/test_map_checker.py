"""The map checker against broken maps: for every check a mutant that this very check must catch."""

from typing import NamedTuple

import pytest
import torch

import fixedpoint as fp
from fixedpoint.checks import MAP_CHECKS, CheckFailed, check_map
from maps.affine import Affine, AffineProblem

from .map_calculus_mutants import Derivative
from .map_mutants import FAMILY, MUTANTS, PROBLEM, SIZE, DefaultDtype, GlobalNorm, HiddenRandomness, InPlaceSetup


class Ranking(fp.FixedPointMap):
    """The stationary distribution of a Markov chain: homogeneous, fixed points isolated by `retract` only."""

    signature = fp.Signature(size=SIZE, traits={"homogeneous"})

    def setup(self, problem):
        return fp.Context(rows=problem / problem.sum(1, keepdim=True), problem=problem)

    def initial(self, context):
        return torch.full_like(context.rows[:, 0], 1 / SIZE)

    def forward(self, x, context):
        return (context.rows @ x[:, :, None])[:, :, 0]

    def retract(self, x, context):
        return x / x.abs().sum(1, keepdim=True)

    def dehomogenized(self, x, context):
        return self.retract(x, context)


class Weighted(Affine):
    """An affine map in rescaled coordinates: a contraction in its metric only."""

    def metric(self, context):
        return (torch.arange(1.0, SIZE + 1, dtype=context.rows.b.dtype) ** 4).expand_as(context.rows.b)

    @staticmethod
    def problem():
        scale = torch.arange(1.0, SIZE + 1, dtype=torch.float64) ** 2
        return AffineProblem(PROBLEM.A * scale / scale[:, None], PROBLEM.b)


@pytest.mark.parametrize(
    ("map", "problem", "reference"),
    [
        (Affine(SIZE), PROBLEM, FAMILY.reference(PROBLEM)),
        (Affine(SIZE), PROBLEM._replace(A=PROBLEM.A[0]), None),  # one matrix for the whole batch
        (Affine(SIZE), AffineProblem(*(t.float() for t in PROBLEM)), None),
        (Ranking(), torch.rand(4, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64), None),
        (Weighted(SIZE), Weighted.problem(), None),
    ],
    ids=["affine", "shared", "single-precision", "homogeneous", "metric"],
)
def test_a_good_map_passes(map, problem, reference):
    report = check_map(map, problem, reference=reference)
    assert tuple(r.name for r in report.results) == MAP_CHECKS
    assert {r.name for r in report.skipped} <= {"reference"}


def test_the_custom_derivative_itself_is_right():
    report = check_map(Derivative(SIZE), PROBLEM, raise_on_failure=False)
    assert "vjp-jvp" not in {r.name for r in report.failures}


@pytest.mark.parametrize(("check", "kind"), MUTANTS)
def test_a_mutant_is_caught_by_name(check, kind):
    report = check_map(kind(SIZE), PROBLEM, raise_on_failure=False)
    assert check in {r.name for r in report.failures}, str(report)


def test_a_wrong_reference_is_caught_by_name():
    report = check_map(Affine(SIZE), PROBLEM, reference=1.0001 * FAMILY.reference(PROBLEM), raise_on_failure=False)
    assert [r.name for r in report.failures] == ["reference"]


def test_every_check_has_a_mutant():
    assert {p.values[0] for p in MUTANTS} | {"reference"} == set(MAP_CHECKS)


# ------------------------------------------------------------------ the door


def test_failures_raise_by_default_and_name_the_probable_mistake():
    with pytest.raises(CheckFailed, match=r"rows-independent: row 1 of .* changed when row 0 .* over the batch axis"):
        check_map(GlobalNorm(SIZE), PROBLEM)


def test_expected_failures():
    expected = dict.fromkeys(("rows-independent", "batch-size", "select-rows", "vmap"), "a known coupling")
    report = check_map(GlobalNorm(SIZE), PROBLEM, expected_failures=expected, raise_on_failure=False)
    assert not expected.keys() & {r.name for r in report.failures}
    with pytest.raises(CheckFailed, match="vmap: unexpectedly passes"):
        check_map(Affine(SIZE), PROBLEM, expected_failures={"vmap": "branches"})


def test_the_given_problem_is_never_harmed():
    mine = AffineProblem(*(t.clone() for t in PROBLEM))
    check_map(InPlaceSetup(SIZE), mine, raise_on_failure=False)
    assert all(torch.equal(a, b) for a, b in zip(mine, PROBLEM, strict=True))


def test_the_global_state_survives_a_mutant():
    before, state = torch.get_default_dtype(), torch.get_rng_state()
    for kind in (DefaultDtype, HiddenRandomness):
        check_map(kind(SIZE), PROBLEM, raise_on_failure=False)
    assert torch.get_default_dtype() == before
    assert torch.equal(torch.get_rng_state(), state)


class _Call(NamedTuple):
    match: str
    error: type
    arguments: tuple
    options: dict


@pytest.mark.parametrize(
    "call",
    [
        _Call("map: expected a FixedPointMap", TypeError, ("affine", PROBLEM), {}),
        _Call("at least 3", ValueError, (Affine(SIZE), AffineProblem(PROBLEM.A[0], PROBLEM.b[0])), {}),
        _Call("at least 3", ValueError, (Affine(SIZE), AffineProblem(PROBLEM.A[:2], PROBLEM.b[:2])), {}),
        _Call("b: expected finite", ValueError, (Affine(SIZE), PROBLEM._replace(b=PROBLEM.b / 0)), {}),
        _Call("reference: expected shape", ValueError, (Affine(SIZE), PROBLEM), {"reference": torch.zeros(SIZE)}),
        _Call("no checks named", ValueError, (Affine(SIZE), PROBLEM), {"expected_failures": {"jvp": "?"}}),
    ],
    ids=lambda call: call.match,
)
def test_misuse_is_refused_at_the_door(call):
    with pytest.raises(call.error, match=call.match):
        check_map(*call.arguments, **call.options)
