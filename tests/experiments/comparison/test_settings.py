"""Comparisons: which rows, with which settings, from which file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fixedpoint as fp
from fixedpoint.experiments.comparison import compare
from fixedpoint.experiments.comparison.compare import LOCAL_SETTINGS, configure, rows, settings_file, starting_point
from fixedpoint.experiments.evaluation import generator, trace
from fixedpoint.experiments.tuning import Tuned
from maps.elastic_net import RandomElasticNet
from tests import distributions
from tests.support import tuned

# -- which settings


def test_settings_are_looked_up_from_near_to_far(folder: Path) -> None:
    assert settings_file("elastic-net") is None
    shipped = tuned(folder / "shipped" / "RandomElasticNet.json")
    assert settings_file("elastic-net") == shipped
    local = tuned(LOCAL_SETTINGS / "elastic-net.json")
    assert settings_file("elastic-net") == local
    given = tuned(folder / "given.json")
    assert settings_file("elastic-net", given) == given
    assert settings_file("affine") is None


def test_settings_that_are_not_there_are_refused(folder: Path) -> None:
    for path in (folder / "none.json", folder):
        with pytest.raises(ValueError, match=r"^settings: no file "):
            settings_file("elastic-net", path)


def test_configuring_uses_what_the_file_has_for_this_accelerator(folder: Path) -> None:
    path = tuned(folder / "s.json", anderson_2=Tuned({"step": 1.5}, {"memory": 4}, 1.0))
    family, method, options, _ = configure("elastic-net", "anderson-2", path)
    assert (family.map.step, method.memory) == (1.5, 4)  # type: ignore[attr-defined]
    assert options == {"family": {"step": 1.5}, "accelerator": {"memory": 4}}
    family, _, options, _ = configure("elastic-net", "picard", path)
    assert (family.map.step, options) == (1.8, {})  # type: ignore[attr-defined]
    assert configure("elastic-net", "anderson-2", None).options == {}


@pytest.mark.parametrize(
    "entry", [Tuned({"stepp": 1.5}, {}, 1.0), Tuned({"step": 7.0}, {}, 1.0), Tuned({}, {"memory": "x"}, 1.0)]
)
def test_settings_that_do_not_fit_name_their_file(folder: Path, entry: Tuned) -> None:
    path = tuned(folder / "s.json", anderson_2=entry)
    with pytest.raises(ValueError, match=r"^settings file .*s\.json, anderson-2: "):
        configure("elastic-net", "anderson-2", path)


def test_an_accelerator_may_refuse_the_map(folder: Path) -> None:
    path = tuned(folder / "s.json", relaxed=Tuned({"step": 1.9}, {"relaxation": 1.3}, 1.0))
    with pytest.raises(ValueError, match=r"s\.json, relaxed: relaxation: 1\.3 times the map's averagedness"):
        rows("elastic-net", ["relaxed"], path)


@pytest.mark.parametrize(("family", "accelerator"), [("a-function", "picard"), ("affine", "no-accelerator")])
def test_plugins_of_the_wrong_kind_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, family: str, accelerator: str
) -> None:
    points = {
        "families:a-function": "collections:OrderedDict",
        "accelerators:no-accelerator": "collections:OrderedDict",
    }
    distributions.write(folder / "site", "odd", points)
    monkeypatch.syspath_prepend(folder / "site")
    with pytest.raises(TypeError, match=r"expected a (ProblemFamily|Accelerator), got OrderedDict"):
        configure(family, accelerator, settings_file(family))


# -- which rows


def test_rows_are_the_defaults_then_the_tuned_then_the_peers(folder: Path) -> None:
    names = ["picard", "anderson-1", "anderson-2"]
    assert [(row.name, row.variant) for row in rows("elastic-net", names, None)] == [(n, "default") for n in names]
    path = tuned(
        folder / "s.json",
        "diabetes-lasso",
        picard=Tuned({"scale": 0.2}, {}, 3.0),
        anderson_2=Tuned({"scale": 0.4, "alpha": 1.2}, {"memory": 5}, 2.0),
        momentum=Tuned({"scale": 0.8}, {}, 1.0),
    )
    found = rows("diabetes-lasso", names, path)
    assert [(row.name, row.variant, row.peer is not None) for row in found] == [
        *((name, "default", False) for name in names),
        ("picard", "tuned", False),
        ("anderson-2", "tuned", False),
        ("scs, its defaults", "default", True),
        ("scs, our settings", "default", True),
        ("scs, our settings, eager", "default", True),
    ]
    assert found[4].options == {"family": {"scale": 0.4, "alpha": 1.2}, "accelerator": {"memory": 5}}
    assert found[5].options == {}
    for matched in found[6:]:  # the best of the rows shown: momentum is better but not among them
        assert (matched.options["scale"], matched.options["alpha"]) == (0.4, 1.2)
        assert matched.options["adaptive_scale"] is False


def test_without_tuned_settings_the_matched_peer_has_our_defaults() -> None:
    (_, _, peer, *_) = rows("diabetes-lasso", ["picard"], None)
    assert (peer.options["scale"], peer.options["alpha"]) == (0.1, 1.5)


# -- named settings and shifts


@pytest.mark.usefixtures("paper")
def test_a_named_setting_has_a_file_of_its_own_and_settles_the_map(folder: Path) -> None:
    tuned(folder / "shipped" / "RandomElasticNet.json")
    assert settings_file("elastic-net", setting="paper") is None
    shipped = tuned(folder / "shipped" / "RandomElasticNet.paper.json", "elastic-net.paper")
    assert settings_file("elastic-net", setting="paper") == shipped
    entry = Tuned({}, {"memory": 4}, 1.0)
    local = tuned(LOCAL_SETTINGS / "elastic-net.paper.json", "elastic-net.paper", anderson_2=entry)
    assert settings_file("elastic-net", setting="paper") == local
    found = rows("elastic-net", ["picard", "anderson-2"], local, setting="paper")
    assert [(row.name, row.variant) for row in found] == [
        ("picard", "default"),
        ("anderson-2", "default"),
        ("anderson-2", "tuned"),
    ]
    assert {(row.family.map.beta, row.family.map.step) for row in found} == {(0.25, 1.1)}  # type: ignore[attr-defined]
    assert found[2].accelerator.memory == 4  # type: ignore[union-attr]
    assert starting_point("elastic-net", "paper", local) == ({"beta": 0.25, "step": 1.1}, {"memory": 4})
    with pytest.raises(ValueError, match=r"belongs to family 'elastic-net\.paper', not 'elastic-net'"):
        rows("elastic-net", ["anderson-2"], local)


@pytest.mark.usefixtures("paper")
def test_a_name_that_is_not_there_is_refused_with_those_that_are(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^setting: elastic-net has no 'papers'; it has paper$"):
        rows("elastic-net", ["picard"], None, setting="papers")
    with pytest.raises(ValueError, match=r"^setting: affine has no 'paper'; it has none$"):
        rows("affine", ["picard"], None, setting="paper")
    with pytest.raises(ValueError, match=r"^shift: elastic-net has no 'storm'; it has noise x2, density x2, size x2$"):
        rows("elastic-net", ["picard"], None, shifts=["storm"])


def test_shifts_are_shown_for_what_was_tuned(folder: Path) -> None:
    path = tuned(folder / "s.json", anderson_2=Tuned({"step": 1.5}, {"memory": 4}, 1.0))
    found = rows("elastic-net", ["picard", "anderson-2"], path, shifts=["noise x2", "size x2"])
    assert [(row.name, row.variant, row.shift) for row in found] == [
        ("picard", "default", None),
        ("anderson-2", "default", None),
        ("anderson-2", "tuned", None),
        ("picard", "default", "noise x2"),
        ("anderson-2", "tuned", "noise x2"),
        ("picard", "default", "size x2"),
        ("anderson-2", "tuned", "size x2"),
    ]
    steps = [(row.family.map.step, row.family.noise, row.family.spread) for row in found[3:]]  # type: ignore[attr-defined]
    assert steps == [(1.8, 0.2, 1.0), (1.5, 0.2, 1.0), (1.8, 0.1, 2.0), (1.5, 0.1, 2.0)]


def test_a_shift_must_leave_the_map_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RandomElasticNet, "shifts", {"steeper": {"beta": 0.25, "size": 26}})
    with pytest.raises(
        ValueError, match=r"^shift 'steeper' of elastic-net changes the map \(size: 26, not 25; beta: 0"
    ):
        rows("elastic-net", ["picard"], None, shifts=["steeper"])


def test_shifted_rows_are_measured_on_shifted_problems() -> None:
    plain, moved = compare.compare("elastic-net", ["picard"], instances=3, steps=6, shifts=["noise x2"])
    assert (plain["shift"], moved["shift"]) == (None, "noise x2")
    family = fp.families.create("elastic-net", noise=0.2)
    errors = trace(family, fp.accelerators.create("picard"), family.sample(3, generator=generator(0, "test")), 6)[0]
    assert moved["curve"]["median"] == pytest.approx(errors.quantile(0.5, dim=1).tolist())
    assert moved["curve"]["median"] != plain["curve"]["median"]


# -- the comparison itself


def compared(**options: Any) -> list[dict[str, Any]]:
    return compare.compare("elastic-net", ["picard", "anderson-2"], **{"instances": 3, "steps": 6, **options})


def test_records_say_what_was_measured(folder: Path) -> None:
    path = tuned(folder / "s.json", anderson_2=Tuned({"step": 1.5}, {"memory": 4}, 1.0))
    calls = []
    found = compared(seed=5, settings=path, report=lambda row, index, count: calls.append((row.name, index, count)))
    assert calls == [("picard", 0, 3), ("anderson-2", 1, 3), ("anderson-2", 2, 3)]
    for record in found:
        assert json.loads(json.dumps(record, allow_nan=False)) == record
        assert (record["family"], record["seed"], record["steps"], record["instances"]) == ("elastic-net", 5, 6, 3)
        assert (record["error"], record["peer"], record["batch"]) == ("residual", False, 3)
        assert record["curve"]["evaluations"] == [1, 2, 3, 4, 5, 6]
        assert sum(record["status"].values()) == 3
    assert [record["settings"] for record in found[:2]] == [{}, {}]
    assert found[2]["settings"] == {"family": {"step": 1.5}, "accelerator": {"memory": 4}}


def test_what_is_compared_on_is_held_out() -> None:
    family = fp.families.create("elastic-net")
    problem = family.sample(3, generator=generator(0, "test"))
    errors = trace(family, fp.accelerators.create("picard"), problem, 6)[0]
    assert compared()[0]["curve"]["median"] == pytest.approx(errors.quantile(0.5, dim=1).tolist())


def test_every_row_starts_from_the_same_instances_which_the_seed_chooses() -> None:
    def curves(seed: int) -> list[dict[str, Any]]:
        return [record["curve"] for record in compared(seed=seed)]

    first = curves(0)
    assert first == curves(0)
    assert first != curves(1)
    assert first[0]["median"][0] == first[1]["median"][0], "the first evaluation is at the common cold start"


@pytest.mark.parametrize("argument", ["instances", "steps"])
def test_nothing_to_measure_is_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected at least 1, got 0"):
        compared(**{argument: 0})


def test_nobody_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^names: expected at least one accelerator"):
        compare.compare("affine", [])
