"""The map checker against broken maps: for every check a mutant that this very check must catch."""

import itertools
from typing import NamedTuple

import pytest
import torch

import fixedpoint as fp
from fixedpoint.checks import MAP_CHECKS, CheckFailed, check_map
from maps.affine import Affine, AffineProblem, RandomAffine

SIZE = 5
FAMILY = RandomAffine(SIZE, rate=0.7)
PROBLEM = FAMILY.sample(4, generator=torch.Generator().manual_seed(0))


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


# ------------------------------------------------------------------ mutants

MUTANTS = []


def mutant(check):
    """Register a broken map under the check that must catch it."""
    return lambda kind: MUTANTS.append(pytest.param(check, kind, id=f"{check}-{kind.__name__}")) or kind


class _Linear(torch.autograd.Function):
    """x -> A x with a derivative that is `factor` times the right one, in both modes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A, x, backward, forward):
        return (A @ x[:, :, None])[:, :, 0]

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.A, _, ctx.back, ctx.ahead = inputs
        ctx.save_for_forward(ctx.A)

    @staticmethod
    def backward(ctx, g):
        return None, ctx.back * (ctx.A.mT @ g[:, :, None])[:, :, 0], None, None

    @staticmethod
    def jvp(ctx, dA, dx, *_):
        return ctx.ahead * (ctx.A @ dx[:, :, None])[:, :, 0]


class Derivative(Affine):
    factors = (1.0, 1.0)

    def forward(self, x, context):
        return _Linear.apply(context.rows.A, x, *self.factors) + context.rows.b


def test_the_custom_derivative_itself_is_right():
    report = check_map(Derivative(SIZE), PROBLEM, raise_on_failure=False)
    assert "vjp-jvp" not in {r.name for r in report.failures}


@mutant("vjp-jvp")
class ZeroDerivative(Derivative):
    factors = (0.0, 0.0)


@mutant("vjp-jvp")
class FlippedSign(Derivative):
    factors = (-1.0, -1.0)


@mutant("vjp-jvp")
class WrongFactor(Derivative):
    factors = (2**0.5, 2**0.5)


@mutant("vjp-jvp")
class OneModeWrong(Derivative):
    factors = (1.0, 2**0.5)


@mutant("vjp-jvp")
class Detached(Affine):
    def forward(self, x, context):
        return super().forward(x.detach(), context)


@mutant("vjp-jvp")
class SmallDetachedPart(Affine):
    """A wrong derivative of one part in a thousand."""

    def forward(self, x, context):
        return super().forward(0.999 * x + 0.001 * x.detach(), context)


@mutant("gradient")
class ZeroGradient(Affine):
    def implicit_vjp(self, x_star, context, cotangent):
        return AffineProblem(*(torch.zeros_like(t) for t in context.problem))


@mutant("gradient")
class FlippedGradient(Affine):
    def implicit_vjp(self, x_star, context, cotangent):
        return AffineProblem(*(-g for g in super().implicit_vjp(x_star, context, cotangent)))


@mutant("gradient")
class OneLeafForgotten(Affine):
    def setup(self, problem):
        return super().setup(problem._replace(A=problem.A.detach()))._replace(problem=problem)


@mutant("rows-independent")
class GlobalNorm(Affine):
    def forward(self, x, context):
        return super().forward(x / (1 + torch.linalg.vector_norm(x)), context)


@mutant("rows-independent")
class AllRows(Affine):
    def forward(self, x, context):
        fx = super().forward(x, context)
        return torch.where(torch.isfinite(fx).all(), fx, x)


@mutant("rows-independent")
class CoupledSetup(Affine):
    def setup(self, problem):
        return super().setup(problem._replace(b=problem.b / problem.b.abs().max()))


@mutant("rows-independent")
class CoupledResidual(Affine):
    def assess(self, evaluation, aux, context):
        residual, status = super().assess(evaluation, aux, context)
        return fp.Assessment(residual.max().expand_as(residual), status)


@mutant("rows-independent")
class RaisesOnNaN(Affine):
    def forward(self, x, context):
        torch.linalg.eigvalsh(x[:, :, None] * x[:, None, :])  # raises for the whole batch
        return super().forward(x, context)


@mutant("inputs-untouched")
class InPlace(Affine):
    def forward(self, x, context):
        return x.copy_(super().forward(x, context))


@mutant("inputs-untouched")
class InPlaceSetup(Affine):
    def setup(self, problem):
        problem.b.add_(1.0)
        return super().setup(problem)


@mutant("shape-and-dtype")
class Single(Affine):
    def forward(self, x, context):
        return super().forward(x, context).float()


@mutant("shape-and-dtype")
class Double(Affine):
    def forward(self, x, context):
        return super().forward(x, context) + torch.zeros(SIZE, dtype=torch.float64)


@mutant("shape-and-dtype")
class BareSqueeze(Affine):
    def forward(self, x, context):
        return super().forward(x, context).squeeze()


@mutant("evaluations")
class EvaluatesTwice(Affine):
    def evaluate(self, x, context):
        return 0.5 * self.forward(x, context) + 0.5 * self.forward(x, context), None


@mutant("evaluations")
class EvaluatesInAssess(Affine):
    def assess(self, evaluation, aux, context):
        residual = self.forward(evaluation.x, context) - evaluation.x
        return super().assess(evaluation._replace(residual=residual), aux, context)


@mutant("global-state")
class HiddenRandomness(Affine):
    def forward(self, x, context):
        return super().forward(x, context) + 0 * torch.rand_like(x)


@mutant("global-state")
class DefaultDtype(Affine):
    def setup(self, problem):
        torch.set_default_dtype(torch.float64)
        return super().setup(problem)


@mutant("repeatable")
class Remembers(Affine):
    seen = 0.0

    def forward(self, x, context):
        self.seen = self.seen + 1e-14
        return super().forward(x, context) + self.seen


@mutant("repeatable")
class Noisy(Affine):
    def forward(self, x, context):
        return super().forward(x, context) + 1e-10 * torch.rand_like(x)


def _declaring(base, **changes):
    signature = base.signature
    known = {"size": SIZE, "traits": signature.traits, "coordinates": signature.coordinates}
    return fp.Signature(**known | changes)


@mutant("traits")
class SlightlyExpansive(Affine):
    """Singular values up to 1.05, in one direction of five."""

    def forward(self, x, context):
        return 1.5 * (super().forward(x, context) - context.rows.b) + context.rows.b


@mutant("traits")
class RotationAsContraction(Affine):
    def forward(self, x, context):
        return x.roll(1, 1) + context.rows.b


@mutant("traits")
class ReflectionAsAveraged(Affine):
    def __init__(self, size):
        super().__init__(size)
        self.signature = _declaring(self, traits={"averaged", "nonexpansive"}, averagedness=0.8)

    def forward(self, x, context):
        return context.rows.b - 0.9 * x


@mutant("traits")
class AffineAsHomogeneous(Affine):
    def __init__(self, size):
        super().__init__(size)
        self.signature = _declaring(self, traits={"homogeneous"})


@mutant("traits")
class WrongMetric(Affine):
    def metric(self, context):
        return (torch.arange(1.0, SIZE + 1, dtype=context.rows.b.dtype) ** 4).expand_as(context.rows.b)


@mutant("signature")
class NotJson(Affine):
    def __init__(self, size):
        super().__init__(size)
        self.signature = _declaring(self, coordinates={"dtype": torch.float64})


@mutant("signature")
class UnstableHash(Affine):
    counter = itertools.count()

    @property
    def signature(self):
        return fp.Signature(size=SIZE, coordinates={"number": next(self.counter)})

    @signature.setter
    def signature(self, value):
        pass


@mutant("signature")
class WrongFeatures(Affine):
    def __init__(self, size):
        super().__init__(size)
        self.signature = _declaring(self, features=3)


@mutant("signature")
class ZeroMetric(Affine):
    def metric(self, context):
        return torch.zeros_like(context.rows.b)


@mutant("signature")
class StartOfOneInstance(Affine):
    def initial(self, context):
        return torch.zeros_like(context.rows.b[0])


@mutant("evaluate")
class Damped(Affine):
    def evaluate(self, x, context):
        return 0.5 * x + 0.5 * self.forward(x, context), None


@mutant("evaluate")
class OutputWithoutRows(Affine):
    def output(self, evaluation, aux, context):
        return evaluation.fx.mean(0)


@mutant("assess")
class NegativeResidual(Affine):
    def assess(self, evaluation, aux, context):
        residual, status = super().assess(evaluation, aux, context)
        return fp.Assessment(-residual, status)


@mutant("assess")
class BooleanStatus(Affine):
    def assess(self, evaluation, aux, context):
        residual, _ = super().assess(evaluation, aux, context)
        return fp.Assessment(residual, residual < 1e-6)


@mutant("retract")
class DriftingRetract(Affine):
    def retract(self, x, context):
        return 0.99 * x


@mutant("scales")
class Overflows(Affine):
    def forward(self, x, context):
        return super().forward(torch.log(torch.exp(x)), context)


@mutant("scales")
class DividesByZero(Affine):
    def forward(self, x, context):
        return super().forward(x * (x / x), context)


@mutant("batch-size")
class CountsTheBatch(Affine):
    def forward(self, x, context):
        return super().forward(x, context) * (1 + 1e-9 * x.shape[0])


@mutant("select-rows")
class RowsAsShared(Affine):
    def setup(self, problem):
        context = super().setup(problem)
        return context._replace(rows=context.rows._replace(A=None), shared=problem.A)

    def forward(self, x, context):
        return (context.shared @ x[:, :, None])[:, :, 0] + context.rows.b


@mutant("vmap")
class Branches(Affine):
    def forward(self, x, context):
        return super().forward(x if bool((x.abs() < 1e9).all()) else x / 2, context)


@mutant("faults")
class AccusesGoodData(Affine):
    def faults(self, problem):
        return {"b: expected positive numbers": (problem.b < 0).any(1)}


@mutant("faults")
class FaultsWithoutRows(Affine):
    def faults(self, problem):
        return {"b: expected small numbers": (problem.b > 1e9).any()}


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
