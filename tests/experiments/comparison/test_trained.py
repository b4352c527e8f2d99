"""Comparisons of what was learned: which weights, from where, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import fixedpoint as fp
from accelerators import AndersonII
from fixedpoint.experiments.comparison import compare, configuration
from fixedpoint.experiments.comparison.compare import LOCAL_TRAINING, configure, rows, trained_files
from fixedpoint.experiments.evaluation import generator, trace
from fixedpoint.experiments.tuning import Tuned
from fixedpoint.learning.learned import Learned
from fixedpoint.learning.training import TRAINED
from fixedpoint.plugins.composition import parts
from maps.elastic_net import RandomElasticNet
from tests.support import take_solutions_away, tuned

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
    found = compare.compare(
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
    monkeypatch.setattr(configuration, "BASELINE_INSTANCES", 40)
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
