"""Maps that are broken in their structure: shapes, purity, rows, counts. Each under the check that must catch it."""

import itertools

import pytest
import torch

import fixedpoint as fp
from maps.affine import Affine, RandomAffine

SIZE = 5
FAMILY = RandomAffine(SIZE, rate=0.7)
PROBLEM = FAMILY.sample(4, generator=torch.Generator().manual_seed(0))

MUTANTS = []


def mutant(check):
    """Register a broken map under the check that must catch it."""
    return lambda kind: MUTANTS.append(pytest.param(check, kind, id=f"{check}-{kind.__name__}")) or kind


def declaring(base, **changes):
    signature = base.signature
    known = {"size": SIZE, "traits": signature.traits, "coordinates": signature.coordinates}
    return fp.Signature(**known | changes)


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


@mutant("signature")
class NotJson(Affine):
    def __init__(self, size):
        super().__init__(size)
        self.signature = declaring(self, coordinates={"dtype": torch.float64})


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
        self.signature = declaring(self, features=3)


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
