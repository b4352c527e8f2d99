"""The accelerator checker against broken accelerators: for every check a mutant that this very check must catch."""

import pytest

import fixedpoint as fp
from accelerators import AndersonI, AndersonII, Picard, Safeguarded
from fixedpoint.checks import ACCELERATOR_CHECKS, CheckFailed, check_accelerator

from .accelerator_mutants import MUTANTS, GlobalNorm, Good, Network, TooLong


@pytest.mark.parametrize(
    "make",
    [
        Good,
        Good(),
        Network,
        lambda: AndersonI(memory=3),
        lambda: AndersonII(start=2, interval=3, relaxation=0.8),
        lambda: Safeguarded(AndersonI(memory=4)),
        lambda: Safeguarded(Network()),
    ],
    ids=["class", "instance", "network", "anderson-1", "anderson-2", "safeguarded", "safeguarded-network"],
)
def test_a_good_accelerator_passes(make):
    report = check_accelerator(make)
    assert tuple(r.name for r in report.results) == ACCELERATOR_CHECKS


def test_a_signature_may_be_given():
    signature = fp.Signature(size=9, features=4, coordinates={"form": "ours"})
    report = check_accelerator(lambda: Network(9), signature=signature)
    assert report.passed
    with pytest.raises(CheckFailed, match="state-structure"):
        check_accelerator(Network(6), signature=signature)


@pytest.mark.parametrize(("check", "kind"), MUTANTS)
def test_a_mutant_is_caught_by_name(check, kind):
    report = check_accelerator(kind, raise_on_failure=False)
    assert check in {r.name for r in report.failures}, str(report)


def test_every_check_has_a_mutant():
    assert {p.values[0] for p in MUTANTS} == set(ACCELERATOR_CHECKS)


# ------------------------------------------------------------------ the door


def test_failures_raise_by_default_and_name_the_probable_mistake():
    with pytest.raises(CheckFailed, match=r"rows-independent: row 1 of x changed when row 0 .* over the batch axis"):
        check_accelerator(GlobalNorm)


def test_expected_failures_are_strict():
    assert check_accelerator(TooLong, expected_failures={"converges": "diverges on purpose"}).passed
    with pytest.raises(CheckFailed, match="converges: unexpectedly passes"):
        check_accelerator(Good, expected_failures={"converges": "diverges on purpose"})


def test_undeclared_laws_are_not_tested():
    skipped = {r.name for r in check_accelerator(Picard()).skipped}
    assert skipped == {"scale-invariant", "rotation-invariant", "finite-termination", "safeguarded"}


def test_misuse_is_refused_at_the_door():
    with pytest.raises(TypeError, match="expected an Accelerator"):
        check_accelerator(dict)
    with pytest.raises(ValueError, match="averagedness"):
        check_accelerator(fp.accelerators.create("relaxed"), signature=fp.Signature(6, averagedness=1.0))
    with pytest.raises(ValueError, match="no checks named"):
        check_accelerator(Good, expected_failures={"speed": "?"})
