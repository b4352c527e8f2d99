"""Comparisons: which rows, with which settings, from which file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import fixedpoint as fp
from accelerators import AndersonII
from fixedpoint import comparison, tuning
from fixedpoint.comparison import (
    LOCAL_SETTINGS,
    LOCAL_TRAINING,
    configure,
    rows,
    settings_file,
    starting_point,
    trained_files,
)
from fixedpoint.composition import parts
from fixedpoint.evaluation import generator, trace
from fixedpoint.learned import Learned
from fixedpoint.training import TRAINED
from fixedpoint.tuning import Tuned
from maps.elastic_net import RandomElasticNet
from tests import distributions
from tests.support import take_solutions_away


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and families and packages that ship no settings and no weights yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fp.accelerators, "folders", lambda: [tmp_path / "site"])
    monkeypatch.setattr(
        fp.ProblemFamily, "tuned_file", classmethod(lambda cls: tmp_path / "shipped" / f"{cls.__name__}.json")
    )
    return tmp_path


def tuned(path: Path, family: str = "elastic-net", **settings: Tuned) -> Path:
    """A settings file; keyword `anderson_2` is accelerator "anderson-2"."""
    tuning.save(path, family, {name.replace("_", "-"): entry for name, entry in settings.items()}, {})
    return path


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


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The elastic net has a named setting."""
    monkeypatch.setattr(RandomElasticNet, "settings", {"paper": {"beta": 0.25, "step": 1.1}})


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
    plain, moved = comparison.compare("elastic-net", ["picard"], instances=3, steps=6, shifts=["noise x2"])
    assert (plain["shift"], moved["shift"]) == (None, "noise x2")
    family = fp.families.create("elastic-net", noise=0.2)
    errors = trace(family, fp.accelerators.create("picard"), family.sample(3, generator=generator(0, "test")), 6)[0]
    assert moved["curve"]["median"] == pytest.approx(errors.quantile(0.5, dim=1).tolist())
    assert moved["curve"]["median"] != plain["curve"]["median"]


# -- what was learned

PLAN: dict[str, Any] = {"updates": 1, "instances": 8, "batch": 4, "horizon": 2, "validation": 2, "evaluations": 4}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small accelerator trained on elastic nets of step 1.3, for a moment."""
    out, small = tmp_path_factory.mktemp("run"), {"coordinate-gru": {"hidden": 2}}
    fp.train("elastic-net", "coordinate-gru", family_options={"step": 1.3}, options=small, out=out, seed=3, **PLAN)
    return out / TRAINED


def shipped(weights: Path, name: str = "gru", family: str = "elastic-net") -> Path:
    """These weights, as a package ships them."""
    path = Path.cwd() / "site" / "pretrained" / family / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(weights, path))


def local(weights: Path, name: str = "gru", family: str = "elastic-net") -> Path:
    """These weights, as `fixedpoint train` leaves them."""
    path = LOCAL_TRAINING / family / name / TRAINED
    path.parent.mkdir(parents=True)
    return Path(shutil.copy(weights, path))


def test_weights_are_looked_up_from_near_to_far(weights: Path) -> None:
    assert trained_files("elastic-net") == {}
    far = {name: shipped(weights, name) for name in ("gru", "a+b")}
    shipped(weights, "gru", "affine")
    (LOCAL_TRAINING / "elastic-net" / "unfinished").mkdir(parents=True)
    assert list(trained_files("elastic-net").items()) == [("a+b", far["a+b"]), ("gru", far["gru"])]
    near = local(weights)
    mine = local(weights, "mine")
    assert trained_files("elastic-net") == {"a+b": far["a+b"], "gru": near, "mine": mine}
    assert trained_files("elastic-net", "paper") == {}
    own = local(weights, "gru", "elastic-net.paper")
    assert trained_files("elastic-net", "paper") == {"gru": own}


@pytest.mark.parametrize("place", [local, shipped])
def test_a_trained_row_is_what_was_trained(folder: Path, weights: Path, place: Any) -> None:
    place(weights, "mine")
    path = tuned(folder / "s.json", anderson_2=Tuned({"step": 1.5}, {"memory": 4}, 1.0))
    calls: list[str] = []
    found = comparison.compare(
        *("elastic-net", ["mine", "anderson-2"]),
        **{"instances": 3, "steps": 6, "settings": path, "shifts": ["noise x2"]},
        report=lambda row, index, count: calls.append(row.name),
    )
    names = [(record["accelerator"], record["variant"], record["shift"]) for record in found]
    assert names == [
        ("anderson-2", "default", None),
        ("anderson-2", "tuned", None),
        ("mine", "trained", None),
        ("anderson-2", "tuned", "noise x2"),
        ("mine", "trained", "noise x2"),
    ]
    assert calls == [name for name, _, _ in names]
    assert [record["training"] for record in found if record["variant"] != "trained"] == [None] * 3
    told = found[2]["training"]
    assert told == found[4]["training"]
    assert {**told, "minutes": 0} == {"minutes": 0, "instances": 8, "seed": 3, "updates": 1}
    assert found[2]["settings"] == {"family": {"step": 1.3}}
    family = fp.families.create("elastic-net", step=1.3)
    errors = trace(family, fp.load(weights), family.sample(3, generator=generator(0, "test")), 6)[0]
    assert found[2]["curve"]["median"] == pytest.approx(errors.quantile(0.5, dim=1).tolist())


def test_local_weights_are_used_before_shipped_ones(weights: Path) -> None:
    shipped(weights).write_bytes(b"damaged")
    local(weights)
    assert configure("elastic-net", "gru", None).training == fp.load(weights).provenance


@pytest.mark.usefixtures("paper")
def test_weights_of_something_else_are_refused_by_file(weights: Path) -> None:
    names = {"affine": local(weights, "gru", "affine"), "elastic-net": local(weights, "damaged")}
    with pytest.raises(ValueError, match=r"trained on family 'elastic-net', not 'affine'$") as caught:
        configure("affine", "gru", None)
    assert str(caught.value).startswith(f"checkpoint {names['affine']}: ")
    names["elastic-net"].write_bytes(b"damaged")
    with pytest.raises(ValueError, match=f"^checkpoint {names['elastic-net']}: truncated or damaged"):
        rows("elastic-net", ["picard", "damaged"], None)
    place = local(weights, "gru", "elastic-net.paper")
    with pytest.raises(ValueError, match=rf"^checkpoint {place}: trained with beta=None, not 0\.25 as in 'paper'"):
        configure("elastic-net", "gru", None, "paper")


def test_weights_of_unknown_origin_or_another_map_are_refused() -> None:
    made = fp.accelerators.create("coordinate-gru").bind(RandomElasticNet(6).map.signature)
    path = fp.save(made, LOCAL_TRAINING / "elastic-net" / "mine" / TRAINED)
    told = {"plan": {"instances": 1, "seed": 0}, "minutes": 0.0, "updates": 1}
    family = {"name": "elastic-net", "options": {}}
    for provenance, message in (
        (None, "it does not say what it was trained on"),
        ({**told, "family": "elastic-net"}, "it does not say what it was trained on"),
        ({**told, "family": {**family, "name": None}}, "trained on family None, not 'elastic-net'"),
        (
            {"family": family, "plan": {"seed": 0}, "updates": 1},
            "what it says of its training lacks minutes, instances",
        ),
    ):
        made.provenance = provenance
        fp.save(made, path)
        with pytest.raises(ValueError, match=f"^checkpoint {path}: {message}"):
            configure("elastic-net", "mine", None)
    made.provenance = {**told, "family": family}
    fp.save(made, path)
    with pytest.raises(ValueError, match=rf"^checkpoint {path}: CoordinateGRU was built .* \(size: 25, not 6\)"):
        configure("elastic-net", "mine", None)


@pytest.mark.usefixtures("paper")
@pytest.mark.parametrize("name", ["gru", "warm-start+anderson-2"])
def test_what_was_not_trained_is_refused_with_the_command_that_does(weights: Path, name: str) -> None:
    local(weights, "mine")
    with pytest.raises(ValueError, match=r"has not been trained for elastic-net \(trained are: mine\)") as caught:
        rows("elastic-net", ["picard", name], None)
    assert f"`fixedpoint train elastic-net {name}`" in str(caught.value)
    with pytest.raises(ValueError, match=r"for elastic-net\.paper \(trained are: none\)") as caught:
        configure("elastic-net", name, None, "paper")
    assert f"`fixedpoint train elastic-net --setting paper {name}`" in str(caught.value)


@pytest.mark.parametrize("name", ["mean-start+anderson-2", "ridge-start", "nearest-start"])
def test_closed_form_starts_are_fitted_as_they_are_compared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def rough(self: RandomElasticNet, nets: Any) -> torch.Tensor:
        return fp.solve(self.map, nets, "anderson-2", max_evaluations=30).x

    monkeypatch.setattr(RandomElasticNet, "solutions", rough)
    monkeypatch.setattr(comparison, "BASELINE_INSTANCES", 40)
    path = tuned(folder / "s.json", anderson_2=Tuned({"step": 1.5}, {"memory": 4}, 1.0))
    (row,) = rows("elastic-net", [name], path)
    given = {"anderson-2": {"memory": 4}} if "anderson-2" in name else {}
    assert (row.name, row.variant, row.options) == (name, "trained", {"family": {"step": 1.5}, **given})
    assert (row.training or {})["plan"]["instances"] == 40
    start = next(part for part in parts(row.accelerator) if isinstance(part, Learned))
    assert [part.memory for part in parts(row.accelerator) if isinstance(part, AndersonII)] == [4] * len(given)
    known = row.family.sample(40, generator=generator(0, "train"))
    solutions = row.family.solutions(known)
    assert solutions is not None
    features = row.family.map.featurize(row.family.map.setup(known))
    x, _ = start.init(torch.zeros_like(solutions), features if start.uses_features else None)
    mean = solutions.mean(0).expand_as(solutions)
    if name == "ridge-start":
        assert float((x - solutions).norm()) < 0.7 * float((mean - solutions).norm())
    else:
        torch.testing.assert_close(x, mean if "mean" in name else solutions, rtol=1e-5, atol=1e-5)


def test_a_start_that_needs_solutions_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    take_solutions_away(monkeypatch)
    with pytest.raises(ValueError, match=r"needs solutions to learn from, but RandomElasticNet has none"):
        rows("elastic-net", ["mean-start"], None)


# -- the comparison itself


def compared(**options: Any) -> list[dict[str, Any]]:
    return comparison.compare("elastic-net", ["picard", "anderson-2"], **{"instances": 3, "steps": 6, **options})


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
        comparison.compare("affine", [])
