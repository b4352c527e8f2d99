"""The cone checker against honest cones and against broken ones: for every check a mutant that it must catch."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

import fixedpoint as fp
from fixedpoint.checks import CheckFailed
from maps.cones import PSD, Cone, Nonnegative, ProductCone, SecondOrder, Zero, check_cone
from maps.cones.checks import CONE_CHECKS, points
from maps.cones.checks.derivatives import differences
from tests import distributions, support

from .derivative_mutants import Ruled
from .mutants import MUTANTS, InPlace, LastCoordinate, NaNSpreads, Threshold

ROOT = Path(__file__).resolve().parents[3]
FEW = 15
"""Examples: enough for every mutant."""


class Halfspace(Cone):
    """{z : <a, z> >= 0} for a unit vector a; its dual is the ray along a."""

    def __init__(self, a: list[float]) -> None:
        super().__init__(len(a))
        self.a = torch.tensor(a, dtype=torch.float64)

    def project(self, z: Tensor) -> Tensor:
        a = self.a.to(z)
        return z + (-(z * a).sum(1, keepdim=True)).relu() * a


# ------------------------------------------------------------------ honest cones

HONEST = [
    *(Zero(0), Zero(1), Zero(3), Nonnegative(0), Nonnegative(1), Nonnegative(4), SecondOrder(0), SecondOrder(1)),
    *(SecondOrder(2), SecondOrder(4), ProductCone({"z": 1, "l": 1, "q": [3]}), Halfspace([0.6, 0.0, -0.8]), Ruled(3)),
]


@pytest.mark.parametrize("cone", HONEST, ids=lambda cone: f"{type(cone).__name__}-{cone.dim}")
def test_an_honest_cone_passes(cone: Cone) -> None:
    report = check_cone(cone, examples=FEW)
    assert tuple(r.name for r in report.results) == CONE_CHECKS
    none = set() if cone.dim else {"derivative", "second-derivative"}
    assert {r.name for r in report.skipped} == {"inequality"} | none


def test_an_inequality_tells_which_cone_it_is() -> None:
    cone = Halfspace([0.6, -0.8])
    report = check_cone(cone, inequality=lambda z: -(z @ cone.a), examples=FEW)
    assert not report.skipped
    with pytest.raises(CheckFailed, match="inequality: project moves a point that fulfils the inequality"):
        check_cone(cone, inequality=lambda z: -z.amin(1), examples=FEW, checks=["inequality"])


def test_refused_second_derivatives_are_no_failure() -> None:
    report = check_cone(PSD(2), examples=FEW, checks=["second-derivative"])
    assert report.passed
    assert "second derivatives of the projection onto PSD(order=2) are not available" in report.skipped[0].message


# ------------------------------------------------------------------ broken cones


@pytest.mark.parametrize(("check", "cone"), MUTANTS)
def test_a_mutant_is_caught_by_name(check: str, cone: Cone) -> None:
    inequality = getattr(cone, "inequality", None)
    report = check_cone(cone, inequality=inequality, examples=FEW, checks=[check], raise_on_failure=False)
    assert [r.name for r in report.failures] == [check]


def test_every_check_has_a_mutant() -> None:
    assert {p.values[0] for p in MUTANTS} == set(CONE_CHECKS)


def test_a_failure_shows_the_law_the_smallest_counterexample_and_the_probable_mistake() -> None:
    with pytest.raises(CheckFailed, match="fails 2 of 2 checks") as failed:
        check_cone(
            NaNSpreads(1), checks=["rows-independent", "vmap"], examples=FEW, expected_failures={"vmap": "it passes"}
        )
    (line,) = (line for line in str(failed.value).splitlines() if "rows-independent" in line)
    assert "other rows change when row 0 is set to nan: something reduces over the batch axis" in line
    assert line.endswith("smallest counterexample: x = [[0.0], [0.0]]")


def test_a_projection_that_is_nowhere_smooth_fails() -> None:
    class Noisy(Nonnegative):
        def project(self, z: Tensor) -> Tensor:
            size = z.detach().abs()
            return z.relu() + 1e-4 * size.amax(1, keepdim=True) * torch.sin(1e9 * torch.log(size + 1e-300))

    report = check_cone(Noisy(2), examples=FEW, checks=["derivative"], raise_on_failure=False)
    assert "differences of project have a limit at none of the points" in report.failures[0].message


def test_a_gap_as_small_as_single_precision_is_recognised() -> None:
    cone = Halfspace(torch.tensor([0.6, -0.8]).tolist())
    assert cone.a.norm() != 1
    with pytest.raises(CheckFailed, match=r"idempotent: .*\(so little: a constant made in float32\?"):
        check_cone(cone, examples=10, checks=["idempotent"])


def test_chance_is_recognised() -> None:
    class Dice(Nonnegative):
        calls = 0

        def project(self, z: Tensor) -> Tensor:
            self.calls += 1
            return z.relu() * (1 + 1e-3 * (self.calls % 7 == 0))

    report = check_cone(Dice(2), examples=FEW, checks=["idempotent"], raise_on_failure=False)
    assert "the same points fail or not by chance: random numbers, or state kept in the cone?" in str(report)


def test_a_cone_that_raises_fails_every_check_but_not_the_checker() -> None:
    class Unfinished(Nonnegative):
        def project(self, z: Tensor) -> Tensor:
            raise NotImplementedError("to do")

    report = check_cone(Unfinished(2), examples=10, raise_on_failure=False)
    assert {r.name for r in report.results if r.passed} == {"inequality"}
    assert "raised NotImplementedError: to do" in report.failures[0].message


# ------------------------------------------------------------------ the door


def test_expected_failures_are_strict() -> None:
    expected = {"homogeneous": "numbers below 1e-7 do not matter here"}
    report = check_cone(Threshold(2), checks=["homogeneous"], examples=FEW, expected_failures=expected)
    assert report.results[0].message == "expected to fail: numbers below 1e-7 do not matter here"
    with pytest.raises(CheckFailed, match="moreau: unexpectedly passes"):
        check_cone(Nonnegative(1), checks=["moreau"], examples=10, expected_failures={"moreau": "?"})


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (TypeError, "cone: expected a Cone, got 'second-order'", {"cone": "second-order"}),
        (ValueError, "examples: expected at least 10, got 0", {"examples": 0}),
        (ValueError, r"checks: none is named 'eulers', did you mean 'euler'", {"checks": ["euler", "eulers"]}),
        (ValueError, r"no checks named \['jvp'\]", {"expected_failures": {"jvp": "?"}}),
    ],
)
def test_misuse_is_refused_at_the_door(error: type[Exception], message: str, options: dict[str, Any]) -> None:
    with pytest.raises(error, match=message):
        check_cone(**{"cone": Nonnegative(1), **options})


def test_a_cone_checks_itself() -> None:
    report = check_cone(LastCoordinate(3), inequality=LastCoordinate.inequality, examples=10, raise_on_failure=False)
    assert [r.name for r in report.failures] == ["inequality"]


class Spy(Nonnegative):
    """It keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__(2)
        self.seen: list[list[list[float]]] = []

    def project(self, z: Tensor) -> Tensor:
        self.seen.append(z.tolist())
        return z.relu()


def test_runs_repeat_unless_they_are_told_not_to() -> None:
    def run(seed: int | None) -> str:
        spy = Spy()
        check_cone(spy, examples=10, seed=seed, checks=["moreau", "any-layout"])
        return str(spy.seen)

    first = run(0)
    assert run(0) == first
    assert run(1) != first
    assert run(None) != run(None)
    reports = [check_cone(Threshold(2), examples=FEW, raise_on_failure=False).results for _ in range(2)]
    first_run, second_run = ([replace(result, seconds=0) for result in results] for results in reports)
    assert first_run == second_run


def test_the_global_state_and_the_cones_of_the_caller_stay_as_they_are() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    check_cone(InPlace(2), examples=10, raise_on_failure=False)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_check_may_run_inside_a_property() -> None:
    @settings(max_examples=2, suppress_health_check=[HealthCheck.nested_given])
    @given(hypothesis.strategies.integers(1, 2))
    def inside(dim: int) -> None:
        assert check_cone(Nonnegative(dim), examples=10, checks=["moreau", "derivative"]).passed

    inside()


# ------------------------------------------------------------------ hypothesis


def test_without_hypothesis_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("strategies", "explore"):
        monkeypatch.delitem(sys.modules, f"maps.cones.checks.{module}", raising=False)
    for module in [name for name in sys.modules if name.partition(".")[0] == "hypothesis"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "fixedpoint-acceleration\[check\]"'):
        check_cone(Nonnegative(1))


def test_hypothesis_is_loaded_late_and_keeps_no_examples(tmp_path: Path) -> None:
    code = """
import sys, maps.cones
assert "hypothesis" not in sys.modules
report = maps.cones.check_cone(maps.cones.Nonnegative(1), examples=10)
assert "hypothesis" in sys.modules and report.passed
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True)
    assert not (tmp_path / ".hypothesis" / "examples").exists()


def test_points_are_of_every_kind() -> None:
    cone, found = SecondOrder(3), []

    @settings(max_examples=300)
    @given(points(cone, rows=(2, 3)))
    def collect(x: Tensor) -> None:
        assert x.dtype == torch.float64
        assert tuple(x.shape) in ((2, 3), (3, 3))
        found.append(x.clone())

    collect()
    x = torch.cat(found)
    size, n, t = x.abs().amax(1), x[:, 1:].norm(dim=1), x[:, 0]
    close = 1e-12 * size
    kinds = {
        "apex": size == 0,
        "inside": n < t,
        "polar": n < -t,
        "curved": n > t.abs(),
        "on the boundary": (n > 0) & ((n - t).abs() <= close),
        "on the polar's boundary": (n > 0) & ((n + t).abs() <= close),
        "next to the boundary": ((n - t).abs() > close) & ((n - t).abs() < 1e-5 * size),
        "on the axis": (n == 0) & (t != 0),
        "with ties": (x[:, 1] == x[:, 2]) & (n > 0),
        "tiny": (size > 0) & (size < 1e-5),
        "huge": size > 1e5,
        "of mixed sizes": x.abs().amin(1) < 1e-5 * size,
    }
    assert {kind for kind, rows in kinds.items() if not bool(rows.any())} == set()


def test_points_shrink_to_the_apex_and_do_without_the_cone_where_it_is_broken() -> None:
    class Broken(Nonnegative):
        def project(self, z: Tensor) -> Tensor:
            return z / 0

    assert hypothesis.find(points(Broken(2)), lambda x: True, settings=settings(database=None)).tolist() == [[0, 0]]
    found = hypothesis.find(points(Broken(2)), lambda x: bool((x[-1] < 0).any()), settings=settings(database=None))
    assert tuple(found.shape) == (1, 2)


# ------------------------------------------------------------------ differences


@pytest.mark.parametrize(("at", "smooth"), [(1.0, True), (-1e-3, True), (0.0, False), (1e-6, True)])
def test_a_kink_is_no_place_for_differences(at: float, smooth: bool) -> None:
    x = torch.tensor([[at]], dtype=torch.float64)
    slope, found = differences(torch.relu, x, torch.ones(1, 1, dtype=torch.float64))
    assert found.tolist() == [[smooth]]
    if smooth:
        assert slope.item() == pytest.approx(float(at > 0), abs=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e-12, 3e-5, 5e-5, 9e-5])
def test_a_kink_within_reach_counts_as_one(offset: float) -> None:
    x = torch.tensor([[1.0, offset]], dtype=torch.float64)
    assert differences(torch.relu, x, torch.eye(2, dtype=torch.float64))[1].tolist() == [[True, False]]
    assert differences(torch.abs, -x, torch.eye(2, dtype=torch.float64))[1].tolist() == [[True, False]]


def test_two_kinks_that_balance_count_too() -> None:
    x = torch.zeros(1, 1, dtype=torch.float64)
    assert differences(lambda z: z.clamp(-7e-5, 7e-5), x, torch.ones(1, 1).to(x))[1].tolist() == [[False]]


def test_differences_are_right() -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slope, smooth = differences(lambda z: torch.stack([z.prod(1), z.norm(dim=1)], 1), x, torch.eye(3).to(x))
    expected = torch.stack([x.prod(1, keepdim=True) / x, x / x.norm(dim=1, keepdim=True)], 1)
    assert smooth.all()
    assert (slope - expected).abs().max() < 1e-9


# ------------------------------------------------------------------ the command line

PLUGIN = """
from maps.cones import Nonnegative

class Honest(Nonnegative):
    "The half line."

    @classmethod
    def examples(cls):
        return [cls(1)]

class Mutating(Honest):
    "The half line, in place."

    def project(self, z):
        return z.relu_()

def function():
    "No cone."
"""


def test_the_command_line_checks_the_examples_of_a_registered_cone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {f"cones:{name.lower()}": f"cone_plugin:{name}" for name in ("Honest", "Mutating", "function")}
    distributions.write(tmp_path, "odd", names, {"cone_plugin.py": PLUGIN})
    monkeypatch.syspath_prepend(tmp_path)
    assert "mutating" in fp.cones.names()
    code, out, _ = support.command(capsys, "check", "cone", "honest")
    assert code == 0
    assert "Honest(dim=1): 23 of 24 checks passed, 1 skipped" in out
    code, out, _ = support.command(capsys, "check", "cone", "mutating")
    assert code == 1
    assert "FAIL  inputs-untouched" in out
    assert "smallest counterexample: x = [[-1.0]]" in out
    code, _, err = support.command(capsys, "check", "cone", "function")
    assert code == 2
    assert "cone 'function': expected a class with `examples()`, as a Cone has, got <function" in err
    code, _, err = support.command(capsys, "check", "cone", "honnest")
    assert code == 2
    assert "did you mean 'honest'" in err
