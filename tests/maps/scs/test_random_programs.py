"""What the random programs claim of themselves is confirmed by the scs package and by Clarabel."""

from __future__ import annotations

import numpy as np
import pytest

from tests.maps.scs.random_programs import KINDS, Answer, Case, clarabel, draw, wheel

VERDICT = {"solvable": "solved", "infeasible": "infeasible", "unbounded": "unbounded"}
SEEDS = range(40)


@pytest.fixture(scope="module")
def judged() -> list[tuple[Case, Answer, Answer]]:
    cases = map(draw, SEEDS)
    return [(case, wheel(case, max_iters=5000), clarabel(case)) for case in cases]


def test_no_solver_contradicts(judged: list[tuple[Case, Answer, Answer]]) -> None:
    for seed, (case, *answers) in zip(SEEDS, judged, strict=True):
        for name, answer in zip(("wheel", "clarabel"), answers, strict=True):
            assert answer.status in (VERDICT[case.kind], "unsure"), (seed, name)


def test_solvers_are_mostly_sure(judged: list[tuple[Case, Answer, Answer]]) -> None:
    for answers in zip(*(row[1:] for row in judged), strict=True):
        assert sum(answer.status != "unsure" for answer in answers) >= 36


def test_solvers_agree_on_the_solution(judged: list[tuple[Case, Answer, Answer]]) -> None:
    """The cones of both mean the same: objectives, and dual variables, which are seldom but sometimes not unique."""
    close = []
    for seed, (case, ours, theirs) in zip(SEEDS, judged, strict=True):
        if ours.status == theirs.status == "solved":
            P = case.data["P"].toarray() if "P" in case.data else 0 * np.outer(ours.x, ours.x)
            one, two = (0.5 * a.x @ P @ a.x + case.data["c"] @ a.x for a in (ours, theirs))
            assert abs(one - two) <= 1e-5 * (1 + abs(two)), seed
            close.append(np.abs(ours.y - theirs.y).max() <= 1e-3 * (1 + np.abs(theirs.y).max()))
    assert len(close) >= 18
    assert np.mean(close) >= 0.9


def test_certificates_hold_in_the_data(judged: list[tuple[Case, Answer, Answer]]) -> None:
    for seed, (case, ours, theirs) in zip(SEEDS, judged, strict=True):
        A, b, c = (case.data[name] for name in "Abc")
        for answer in (ours, theirs):
            if answer.status == "infeasible":
                assert np.abs(A.T @ answer.y).max() <= -1e-5 * (b @ answer.y), seed
            if answer.status == "unbounded":
                assert np.abs(case.data["P"] @ answer.x).max() <= -1e-5 * (c @ answer.x) if "P" in case.data else True


def test_everything_occurs() -> None:
    cases = [draw(seed) for seed in range(200)]
    assert {case.kind for case in cases} == set(KINDS)
    for key in ("z", "l", "bu", "q", "s", "ep", "ed", "p"):
        for kind in KINDS:
            assert sum(key in case.cones and case.kind == kind for case in cases) >= 5, (key, kind)
    lists = {key: {x for case in cases for x in case.cones.get(key, [])} for key in ("q", "s", "p", "bu", "bl")}
    assert {1, 2} < lists["q"]
    assert {1, 2, 3} == lists["s"]
    assert min(lists["p"]) < 0 < max(lists["p"])
    assert np.inf in lists["bu"]
    assert -np.inf in lists["bl"]
    assert 50 < sum("P" in case.data for case in cases) < 150
    sizes = np.array([case.data["A"].shape for case in cases])
    assert sizes.max() <= 60
    assert sizes[:, 1].min() == 3
    assert max(np.abs(case.data["b"]).max() for case in cases) > 1e3


def test_a_seed_is_a_problem() -> None:
    one, two = draw(7), draw(7)
    assert one.cones == two.cones
    assert all(np.array_equal(one.data[k], two.data[k]) for k in "bc")
    assert (one.data["A"] != two.data["A"]).nnz == 0
