"""Every registered plug-in through its checker: nothing that registers can escape."""

import pytest
import torch

import fixedpoint as fp
from fixedpoint.checks import check_accelerator, check_map, families_of
from fixedpoint.learning.learned import Learned
from fixedpoint.tensors import pytrees
from maps.cones import check_cone
from tests.checks.learned import SIGNATURE, random_weights

BATCH = 4


@pytest.mark.filterwarnings("ignore:family:UserWarning")  # one broken family fails its own test, not those of others
@pytest.mark.parametrize("name", fp.maps.names())
def test_a_map_has_a_family_to_be_checked_on(name):
    fp.maps.load(name)
    assert families_of(name), f"map {name!r}: no registered family has problems for it, so nothing checks it"


@pytest.mark.parametrize("name", fp.families.names())
def test_the_map_of_a_family_keeps_the_laws(name):
    family = fp.families.load(name)()
    problem = family.sample(BATCH, generator=torch.Generator().manual_seed(0))
    report = check_map(family.map, problem, reference=family.reference(problem))
    assert {r.name for r in report.skipped} <= {"reference", "traits"}, str(report)


@pytest.mark.parametrize("name", fp.families.names())
def test_a_family_draws_with_its_generator_alone(name):
    family = fp.families.load(name)()
    before = torch.get_rng_state()
    first, again, other = (
        pytrees.tensors(family.sample(BATCH, generator=torch.Generator().manual_seed(seed))) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", fp.families.names())
def test_a_family_reports_an_error_for_each_instance(name):
    family = fp.families.load(name)()
    problem = family.sample(BATCH, generator=torch.Generator().manual_seed(0))
    solution = fp.solve(family.map, problem, max_evaluations=20)
    error = family.error(problem, solution.output, solution.residual)
    assert error.shape == (BATCH,)
    assert bool((error >= 0).all())
    assert family.error_kind in ("kkt", "residual")


@pytest.mark.parametrize("name", fp.accelerators.names())
def test_an_accelerator_keeps_the_laws(name):
    accelerator = fp.accelerators.create(name)
    check_accelerator(accelerator)
    if isinstance(accelerator, Learned):
        check_accelerator(accelerator, signature=SIGNATURE)
        check_accelerator(random_weights(accelerator.bind(SIGNATURE)))


@pytest.mark.parametrize("name", fp.cones.names())
def test_a_cone_keeps_the_laws(name):
    examples = fp.cones.load(name).examples()
    assert examples, f"cone {name!r}: `examples()` is empty, so nothing checks it"
    for cone in examples:
        report = check_cone(cone, examples=10)
        assert {r.name for r in report.skipped} <= {"inequality", "second-derivative"}, str(report)


@pytest.mark.parametrize("name", fp.accelerators.names())
def test_the_start_of_an_instance_is_its_own_affair(name):
    accelerator = fp.accelerators.create(name)
    if isinstance(accelerator, Learned):
        accelerator = random_weights(accelerator.bind(SIGNATURE))
    draw = torch.Generator().manual_seed(0)
    sizes = (SIGNATURE.size, SIGNATURE.features, SIGNATURE.size)
    given = [torch.randn(BATCH, k, generator=draw, dtype=torch.float64).exp() for k in sizes]
    before = pytrees.tensors(accelerator.init(*given))
    assert all(len(t) == BATCH for t in before.values())
    for value in (0.0, 1e3, 1e200, torch.nan):
        spoilt = [t.index_fill(0, torch.tensor([0]), value) for t in given]
        after = pytrees.tensors(accelerator.init(*spoilt))
        assert {n for n, t in before.items() if not torch.equal(t[1:], after[n][1:])} == set(), f"row 0 set to {value}"
