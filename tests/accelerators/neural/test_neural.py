"""Learned steps: what they are untrained, their formulas, their limits, and torch.func."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from accelerators.neural.recurrent import REACH
from fixedpoint.tensors import pytrees
from maps.affine import RandomAffine
from maps.scs import SCS
from tests.accelerators.learners import (
    FAMILY,
    RECURRENT,
    SIZES,
    begin,
    evaluations,
    examples,
    problems,
    scrambled,
    taught,
    untrained,
)
from tests.maps.scs.programs import batch as programs

NAMES = list(SIZES)


def rms(t: Tensor) -> Tensor:
    return t.square().mean(1, keepdim=True).sqrt()


@pytest.mark.parametrize("base", ["picard", "anderson-2"])
@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("form", ["scaled", "raw"])
def test_untrained_it_is_its_base(name: str, base: str, form: str) -> None:
    method = untrained(name, base=base, form=form)
    for _ in ("as made", "fitted"):
        ours = fp.unroll(FAMILY.map, problems(), method, steps=9)
        assert torch.equal(ours.x, fp.unroll(FAMILY.map, problems(), base, steps=9).x), "bit for bit"
        method.fit(examples())
    learned = fp.unroll(FAMILY.map, problems(), scrambled(method), steps=9)
    assert not torch.equal(ours.x[0], learned.x[0]), "a learned start"
    assert (ours.x[2] - learned.x[2]).abs().max() > 1e-3


@pytest.mark.parametrize("name", [*RECURRENT, "warm-start"])
def test_untrained_on_the_conic_map_it_is_the_plain_iteration(name: str) -> None:
    many = programs("QP", range(3))
    map = SCS.of(many, scale=1.0)
    path = fp.unroll(map, many, untrained(name, map), steps=7)
    assert torch.equal(path.x, fp.unroll(map, many, None, steps=7).x)


@pytest.mark.parametrize("start", [0, 2])
def test_untrained_mixing_is_anderson_s(start: int) -> None:
    method = untrained("mixing", memory=3, start=start)
    theirs = fp.accelerators.create("anderson-2", memory=3, start=start)
    for map, problem in ((FAMILY.map, problems()), (SCS.of(programs("QP", range(2))), programs("QP", range(2)))):
        ours = fp.unroll(map, problem, untrained("mixing", map, memory=3, start=start), steps=12)
        assert torch.allclose(ours.x, fp.unroll(map, problem, theirs, steps=12).x, rtol=1e-10, atol=1e-10)
    learned = fp.unroll(FAMILY.map, problems(), scrambled(method), steps=12)
    plain = fp.unroll(FAMILY.map, problems(), theirs, steps=12)
    assert torch.allclose(learned.x[:1], plain.x[:1])
    assert (learned.x[start + 3] - plain.x[start + 3]).abs().max() > 1e-3


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("form", ["scaled", "raw"])
def test_the_correction_s_formula(name: str, form: str) -> None:
    """With a decoder that says the same to everything the networks' answer is known."""
    method = taught(name, form=form)
    said = torch.tensor([0.5, -1.0, 2.0, 0.1, 0.3])
    with torch.no_grad():
        method.decoder.weight.zero_()
        if name == "coordinate-gru":  # a gain and an offset for all coordinates
            method.decoder.bias.copy_(torch.tensor([0.7, 0.3]))
        else:
            method.decoder.bias.copy_(said)
    at = evaluations(3, 1)[0]
    x, _ = method.step(at, begin(method, 3)[1])
    spread = method.spread.double()
    size = rms(at.residual / spread)
    answer = 0.7 * at.residual / spread / size + 0.3 if name == "coordinate-gru" else said.double().expand(3, 5)
    scale = method.points.scale.double() if form == "raw" else size * spread
    assert torch.allclose(x, at.fx + scale * answer, rtol=1e-5, atol=1e-6)
    assert (x - at.fx).abs().max() > 0.05
    still = at._replace(fx=at.x, residual=torch.zeros_like(at.x))
    x, _ = method.step(still, begin(method, 3)[1])
    if form == "scaled":
        assert torch.equal(x, still.fx), "it vanishes at the solution"
    else:
        rest = 0.3 if name == "coordinate-gru" else said.double()
        assert torch.allclose(x, still.fx + scale * rest, rtol=1e-5), "which the paper's does not"


@pytest.mark.parametrize("name", RECURRENT)
def test_no_correction_is_longer_than_its_reach(name: str) -> None:
    method = taught(name, size=30.0)
    spread = method.spread.double()
    state = begin(method, 4)[1]
    lengths = []
    for at in evaluations(4, 5):
        x, state = method.step(at, state)
        lengths.append(rms((x - at.fx) / spread) / rms(at.residual / spread))
    assert torch.stack(lengths).max() <= REACH * (1 + 1e-5)
    assert torch.stack(lengths).max() > 0.99 * REACH, "some would be"


@pytest.mark.parametrize("name", [*RECURRENT, "mixing"])
@pytest.mark.parametrize("base", ["picard", "anderson-2"])
def test_after_its_steps_the_base_goes_on_alone(name: str, base: str) -> None:
    """With the history that it has seen from the start."""
    if name == "mixing":
        base, method, theirs = "anderson-2", taught(name), fp.accelerators.create("anderson-2", memory=4)
    else:
        method, theirs = taught(name, base=base), fp.accelerators.create(base)
    path = fp.unroll(FAMILY.map, problems(), method, steps=12)
    _, state = theirs.init(path.x[0], None)
    for k in range(11):
        at = fp.Evaluation(path.x[k], path.fx[k], path.fx[k] - path.x[k])
        proposal, state = theirs.step(at, state)
        if name == "mixing" and k == 0:
            assert torch.equal(path.x[k + 1], path.fx[k]), "there is nothing to mix yet"
        elif k < method.steps:
            assert (path.x[k + 1] - proposal).abs().max() > 1e-6, k
        else:
            assert torch.allclose(path.x[k + 1], proposal, rtol=1e-9, atol=1e-10), k


@pytest.mark.parametrize("name", [*RECURRENT, "mixing"])
def test_instances_may_be_at_different_places(name: str) -> None:
    """Those whose learned steps are over follow the base, the others do not."""
    method = taught(name) if name == "mixing" else taught(name, base="anderson-2")
    first, second, third = evaluations(3, 3)
    state = begin(method, 3)[1]
    for at in (first, second):
        _, state = method.step(at, state)
    together, after = method.step(third, state._replace(seen=torch.tensor([2, method.steps, method.steps + 3])))
    learned, _ = method.step(third, state)
    base, rest = method.step(third, state._replace(seen=torch.full((3,), method.steps)))
    assert torch.allclose(together, torch.cat([learned[:1], base[1:]]), rtol=1e-6)
    assert (learned - base).abs().amax(1).min() > 1e-6
    if name != "mixing":
        assert torch.equal(after.hidden[1:], state.hidden[1:])
        assert not torch.equal(after.hidden[0], state.hidden[0])
        assert torch.equal(rest.hidden, state.hidden)


@pytest.mark.parametrize("name", NAMES)
def test_from_a_cold_start_nothing_learned_has_a_say(name: str) -> None:
    method = taught(name)
    base = {"mixing": fp.accelerators.create("anderson-2", memory=4)}.get(name, fp.accelerators.create("picard"))
    x0 = torch.ones(3, 5, dtype=torch.float64)
    _, warm = begin(method, 3)
    cold, (x, state) = method.restart(x0, None), base.init(x0, None)
    kinds = [[(t.shape, t.dtype) for t in pytrees.tensors(s).values()] for s in (warm, cold)]
    assert kinds[0] == kinds[1]
    for at in evaluations(3, 4):
        x, cold = method.step(at, cold)
        expected, state = base.step(at, state)
        assert torch.allclose(x, expected, rtol=1e-12, atol=1e-12)
    assert method.learned_steps == method.steps


@pytest.mark.parametrize("name", RECURRENT)
def test_it_remembers(name: str) -> None:
    """What it answers depends on what it saw before, and on the start."""
    method = taught(name, size=1.0)
    first, other, second = evaluations(3, 3)
    answers = []
    for before in ([], [first], [other], [first, other]):
        state = begin(method, 3)[1]
        for at in before:
            _, state = method.step(at, state)
        answers.append(method.step(second, state)[0])
    for i in range(4):
        for j in range(i):
            assert (answers[i] - answers[j]).norm() > 1e-3 * second.residual.norm()


@pytest.mark.parametrize("name", RECURRENT)
def test_scaled_corrections_shrink_with_the_residual(name: str) -> None:
    """At the first evaluation the network sees the direction of the residual only."""
    method = taught(name)
    at = evaluations(3, 1)[0]
    moves = []
    for factor in (1.0, 1e-6, 1e-12):
        residual = factor * at.residual
        x, _ = method.step(fp.Evaluation(at.x, at.x + residual, residual), begin(method, 3)[1])
        moves.append((x - at.x - residual) / factor)
    assert torch.allclose(moves[0], moves[1], rtol=1e-4, atol=1e-5)
    assert torch.allclose(moves[0], moves[2], rtol=1e-3, atol=1e-3)


def test_coordinates_are_told_apart_by_their_embedding_alone() -> None:
    """Equal inputs in all coordinates: equal answers where the embeddings are equal, else not; so is the start."""
    method = scrambled(untrained("coordinate-gru"))
    at = fp.Evaluation(*(torch.full((2, 5), value, dtype=torch.float64) for value in (1.0, 1.5, 0.5)))
    x0 = torch.zeros(2, 5, dtype=torch.float64)
    with torch.no_grad():
        method.embedding[3] = method.embedding[1]
    start, state = method.init(x0, None)
    x, _ = method.step(at, state)
    for answer in (start[0], x[0]):
        assert torch.allclose(answer[3], answer[1], rtol=1e-5)
        others = answer[[0, 1, 2, 4]].sort().values
        assert (others[1:] - others[:-1]).min() > 1e-5


@pytest.mark.parametrize("name", [*RECURRENT, "mixing"])
def test_single_precision_sets_no_floor(name: str) -> None:
    """A network in float32 corrects every step down to a residual of 1e-12."""
    family = RandomAffine(5, rate=0.7)
    method = scrambled(untrained(name, family.map, steps=500), size=0.1)
    problem = family.sample(3, generator=torch.Generator().manual_seed(0))
    solution = fp.solve(family.map, problem, method, tolerance=1e-12, max_evaluations=500)
    assert solution.converged.all()
    assert torch.allclose(solution.x, family.reference(problem), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_points_keep_their_dtype_and_networks_theirs(name: str, dtype: torch.dtype) -> None:
    method = taught(name)
    x, state = begin(method, 3, dtype)
    assert x.dtype == dtype
    for at in evaluations(3, 6, dtype=dtype):
        x, after = method.step(at, state)
        assert x.dtype == dtype
        kinds = [[(t.dtype, t.shape) for t in pytrees.tensors(s).values()] for s in (state, after)]
        assert kinds[0] == kinds[1]
        state = after
    assert {p.dtype for p in method.parameters()} == {torch.float32}
    whole = fp.unroll(FAMILY.map, problems(), method, steps=3)
    single = fp.unroll(FAMILY.map, type(problems())(*(t.float() for t in problems())), method, steps=3)
    assert single.fx.dtype == torch.float32
    assert torch.allclose(single.fx.double(), whole.fx, rtol=1e-2, atol=1e-2)
