"""Two good accelerators, and what goes wrong with them. Each mutant under the check that must catch it."""

from typing import Any, NamedTuple

import pytest
import torch

import fixedpoint as fp
from accelerators import AndersonII, Picard, Safeguarded
from maps.affine import Affine, RandomAffine


class Memory(NamedTuple):
    """One vector per instance."""

    last: torch.Tensor


class Good(fp.Accelerator):
    """The plain iteration with features and a state; the mutants vary it."""

    promises = frozenset({"scale-invariant", "rotation-invariant"})

    def init(self, x0, features, metric=None):
        return x0 + 0 * features.sum(1, keepdim=True), Memory(x0)

    def step(self, at, state):
        return at.fx, Memory(at.fx)


class Network(Good, torch.nn.Module):
    """A learned accelerator: single-precision weights, a correction that vanishes with the residual."""

    promises = frozenset()

    def __init__(self, size=6):
        super().__init__()
        self.layer = torch.nn.Linear(size, size)
        torch.nn.init.normal_(self.layer.weight, std=0.01, generator=torch.Generator().manual_seed(0))

    def step(self, at, state):
        length = torch.linalg.vector_norm(at.residual, dim=1, keepdim=True)
        correction = torch.tanh(self.layer((at.residual / (length + (length == 0))).float())).to(at.x.dtype)
        return at.fx + 0.1 * length * correction, Memory(at.fx)


MUTANTS = []


def mutant(check):
    """Register a broken accelerator under the check that must catch it."""
    return lambda kind: MUTANTS.append(pytest.param(check, kind, id=f"{check}-{kind.__name__}")) or kind


def size_of(v):
    return torch.sqrt((v * v).sum(1, keepdim=True))


@mutant("state-structure")
class Growing(Good):
    def step(self, at, state):
        return at.fx, Memory(torch.cat([state.last, at.fx], dim=1))


@mutant("state-structure")
class CountsInOneNumber(Good):
    def init(self, x0, features, metric=None):
        return x0, torch.zeros((), dtype=torch.int64)

    def step(self, at, state):
        return at.fx, state + 1


@mutant("state-structure")
class MetricOnlyState(Good):
    """Well-behaved only while no metric is given."""

    def init(self, x0, features, metric=None):
        return x0, Memory(x0 if metric is None else metric[0])


@mutant("dtype")
class Double(Good):
    def step(self, at, state):
        return at.fx * torch.ones(1, dtype=torch.float64), state


@mutant("dtype")
class DoubleState(Good):
    def init(self, x0, features, metric=None):
        return x0, Memory(x0.double())

    def step(self, at, state):
        return at.fx, Memory(at.fx.double())


@mutant("dtype")
class Single(Good):
    def step(self, at, state):
        return at.fx.float(), state


@mutant("pure")
class RemembersInItself(Good):
    last: Any = None

    def step(self, at, state):
        push = 0 if self.last is None else 0.1 * (at.fx - self.last)
        self.last = at.fx
        return at.fx + push, state


@mutant("pure")
class CountsItsSteps(Good):
    steps = 0

    def step(self, at, state):
        self.steps += 1
        return super().step(at, state)


@mutant("pure")
class TrainsWhileRunning(Network):
    def step(self, at, state):
        with torch.no_grad():
            self.layer.bias += 1e-3
        return super().step(at, state)


@mutant("pure")
class Random(Good):
    def step(self, at, state):
        return at.fx + 1e-9 * torch.rand_like(at.fx), state


@mutant("global-state")
class DrawsAndDiscards(Good):
    def step(self, at, state):
        torch.rand(1)
        return super().step(at, state)


@mutant("global-state")
class SwitchesAutogradOff(Good):
    def step(self, at, state):
        torch.set_grad_enabled(False)
        return super().step(at, state)


@mutant("inputs-untouched")
class WritesIntoTheEvaluation(Good):
    def step(self, at, state):
        return at.x.copy_(at.fx), state


@mutant("inputs-untouched")
class WritesIntoTheState(Good):
    def init(self, x0, features, metric=None):
        return x0, Memory(x0.clone())

    def step(self, at, state):
        state.last.copy_(at.fx)
        return at.fx, state


@mutant("inputs-untouched")
class WritesIntoTheFeatures(Good):
    def init(self, x0, features, metric=None):
        return super().init(x0, features.sub_(features.mean(1, keepdim=True)), metric)


@mutant("rows-independent")
class GlobalNorm(Good):
    def step(self, at, state):
        return at.fx / (1 + 1e-3 * torch.linalg.vector_norm(at.residual)), state


@mutant("rows-independent")
class RestartsTogether(Good):
    def step(self, at, state):
        against = (at.residual * (at.fx - state.last)).sum(1) < 0
        push = torch.where(against.any(), 0.0, 0.3)
        return at.fx + push * (at.fx - state.last), Memory(at.fx)


@mutant("rows-independent")
class CoupledStateOnly(Good):
    def step(self, at, state):
        return at.fx, Memory(at.fx - at.fx.mean(0))


@mutant("rows-independent")
class RaisesOnNaN(Good):
    def step(self, at, state):
        torch.linalg.eigvalsh(at.fx[:, :, None] * at.fx[:, None, :])
        return at.fx, state


@mutant("finite-at-solution")
class DividesByTheResidual(Good):
    def step(self, at, state):
        return at.fx + 0.01 * at.residual / size_of(at.residual), state


@mutant("finite-at-solution")
class SecantWithoutGuard(Good):
    """Aitken's extrapolation, 0/0 when an evaluation is repeated."""

    def step(self, at, state):
        change = at.residual - state.last
        return at.fx - 0.1 * change * (at.residual * change).sum(1, True) / (change * change).sum(1, True), Memory(
            at.residual
        )


@mutant("differentiable")
class Detached(Good):
    def step(self, at, state):
        return at.fx.detach(), Memory(at.fx)


@mutant("differentiable")
class RootOfZero(Good):
    def step(self, at, state):
        return at.fx + 0.01 * size_of(at.residual), state


@mutant("differentiable")
class LeavesTorch(Good):
    def step(self, at, state):
        return torch.from_numpy(at.fx.detach().numpy()).clone(), state


@mutant("evaluations")
class HoldsAMap(Good):
    """Two evaluations for the price of one, on a map of its own."""

    def __init__(self):
        family = RandomAffine(6)
        self.map, problem = Affine(6), family.sample(5, generator=torch.Generator().manual_seed(0))
        self.context = self.map.setup(problem)

    def step(self, at, state):
        return at.fx + 0 * self.map.forward(at.x[:1].expand(5, -1), self.context)[: at.x.shape[0]], state


@mutant("converges")
class TooLong(Good):
    def step(self, at, state):
        return at.x + 2.5 * at.residual, state


@mutant("declared-laws")
class DeclaresTheUnknown(Good):
    promises = frozenset({"quadratic"})


@mutant("scale-invariant")
class AbsoluteRidge(AndersonII):
    def weights(self, residual, state):
        ridge = 1e-8 * torch.eye(self.memory, dtype=residual.dtype)
        right = (state.dr * state.metric[:, None]) @ residual[:, :, None]
        return torch.linalg.solve(state.gram + ridge, right)[:, :, 0]


@mutant("scale-invariant")
class AbsoluteEpsilon(Good):
    def step(self, at, state):
        length = size_of(at.residual)
        return at.fx + 0.1 * at.residual * length / (length + 1e-6), state


@mutant("rotation-invariant")
class ByCoordinates(Good):
    def step(self, at, state):
        return torch.where(at.residual > 0, at.fx, at.x + 0.9 * at.residual), state


@mutant("finite-termination")
class PlainWithMemory(Picard):
    memory = 5
    promises = frozenset({"finite-termination"})


@mutant("finite-termination")
class LateStart(AndersonII):
    def __init__(self):
        super().__init__(start=3)
        self.promises = frozenset({"finite-termination"})


@mutant("safeguarded")
class TrustsItsInner(Safeguarded):
    def step(self, at, state):
        following, inner = self.inner.step(at, state.inner)
        return following, state._replace(inner=inner)


@mutant("safeguarded")
class ChecksFinitenessOnly(Safeguarded):
    def step(self, at, state):
        following, inner = self.inner.step(at, state.inner)
        return torch.where(torch.isfinite(following), following, at.fx), state._replace(inner=inner)
