"""Accelerators as text ("gru+anderson-2") and as plain data."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

import fixedpoint as fp
from accelerators import AndersonII, Picard, Safeguarded, Schedule
from accelerators.neural import GRU, MeanStart, WarmStart
from fixedpoint.learning.learned import Learned, options
from fixedpoint.plugins.composition import build, compose, describe, parts
from tests.checks.learned import SIGNATURE, points

# -- from text


def test_an_expression_is_a_schedule_under_the_safeguard() -> None:
    made = compose("gru+anderson-2")
    assert type(made) is Safeguarded
    assert type(made.inner) is Schedule
    assert [type(part) for part in made.inner.parts] == [GRU, AndersonII]
    assert made.inner.steps == [made.inner.parts[0].steps] == [20]
    assert made.signature is None
    assert made.bind(SIGNATURE).signature == SIGNATURE


def test_a_single_name_needs_no_schedule() -> None:
    made = compose(" picard ")
    assert type(made) is Safeguarded
    assert type(made.inner) is Picard


def test_a_part_keeps_its_turn() -> None:
    made = compose("mean-start + warm-start +gru+ anderson-1", {"gru": {"steps": 7}})
    assert made.inner.steps == [0, 0, 7]


def test_parts_get_their_own_arguments() -> None:
    given = {"gru": {"hidden": 9, "base": "anderson-2"}, "anderson-2": {"memory": 4}, "safeguarded": {"allowance": 2.5}}
    before = json.dumps(given)
    made = compose("gru+anderson-2", given)
    gru, anderson = made.inner.parts
    assert (gru.hidden, gru.base.memory, anderson.memory, made.allowance) == (9, 10, 4, 2.5)
    assert json.dumps(given) == before


@pytest.mark.parametrize("expression", ["", "+", "gru+", "+gru", "gru++picard", " + "])
def test_an_empty_part_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"^accelerator: expected registered names joined by '\+', got '"):
        compose(expression)


@pytest.mark.parametrize(
    ("expression", "settings", "error", "message"),
    [
        ("gruu+anderson-2", {}, fp.RegistryError, r"no accelerator named 'gruu'; did you mean 'gru'\?"),
        ("gru", {"lstm": {"hidden": 3}}, ValueError, r"^options: 'gru' has no part named \['lstm'\]"),
        ("gru", {"gru": {"hiden": 3}}, TypeError, "hiden"),
        ("gru", {"gru": {"hidden": 0}}, ValueError, r"^hidden: expected a whole number >= 1, got 0"),
        ("gru", {"safeguarded": {"share": 2}}, ValueError, "^share: "),
        ("anderson-2+gru", {}, ValueError, r"^steps: expected a whole number >= 0 for each of the 1 part"),
    ],
)
def test_mistakes_are_named(expression: str, settings: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compose(expression, settings)


# -- as data


@pytest.mark.parametrize("name", fp.accelerators.names())
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_description_is_json_and_builds_the_same_again(name: str, wrapped: bool) -> None:
    made = fp.accelerators.create(name)
    if wrapped:
        schedule = fp.accelerators.create("schedule", parts=["mean-start", made, "picard"], steps=[2, 3])
        made = fp.accelerators.create("safeguarded", inner=schedule, allowance=3.0)
    description = json.loads(json.dumps(describe(made)))
    assert "signature" not in json.dumps(description)
    again = build(description, SIGNATURE)
    assert type(again) is type(made)
    assert describe(again) == description
    assert torch.equal(points(again), points(made))


def test_what_differs_from_the_defaults_is_described() -> None:
    made = compose("gru+anderson-2", {"gru": {"hidden": 9, "form": "raw", "seed": 3}, "anderson-2": {"memory": 4}})
    inner = describe(made)["options"]["inner"]
    assert inner["accelerator"] == "schedule"
    gru, anderson = inner["options"]["parts"]
    assert (gru["accelerator"], anderson["accelerator"]) == ("gru", "anderson-2")
    assert {"hidden": 9, "form": "raw", "seed": 3}.items() <= gru["options"].items()
    assert gru["options"]["base"] == {"accelerator": "picard", "options": {}}
    assert anderson["options"]["memory"] == 4


def test_building_binds_where_there_is_a_signature() -> None:
    description = describe(compose("warm-start+anderson-2"))
    bound = build(description, SIGNATURE)
    assert [part.signature for part in parts(bound) if isinstance(part, WarmStart)] == [SIGNATURE]
    unbound = build(description, None)
    assert [part.signature for part in parts(unbound)] == [None] * 4


def test_the_same_seed_builds_the_same_weights_and_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    one, same, other = (compose("gru", {"gru": {"seed": seed}}).bind(SIGNATURE) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    first, second, third = ([p.detach() for p in made.parameters()] for made in (one, same, other))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, third, strict=True))


def test_the_parts_of_a_whole_are_found() -> None:
    made = compose("mean-start+gru+anderson-2")
    kinds = [type(part) for part in parts(made)]
    assert kinds == [Safeguarded, Schedule, MeanStart, GRU, Picard, AndersonII]
    assert list(parts([3, "gru", None])) == []


class Odd(Picard):
    """Keeps what no description can hold."""

    def __init__(self, thing: Any = None, lost: int = 0) -> None:
        self.thing = thing


class Kept(Odd):
    def __init__(self, thing: Any = None) -> None:
        self.thing = thing


def test_what_cannot_be_described_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^Odd does not keep its argument\(s\) lost as attributes"):
        describe(Odd())
    with pytest.raises(fp.RegistryError, match=r"Kept is not a registered accelerator: give its package an entry"):
        describe(Kept())
    for thing in ({"a": 1}, Tensor([1.0]), SIGNATURE, Picard):
        with pytest.raises(TypeError, match=r"^thing: expected plain data or an accelerator, got "):
            describe(Kept([3, [thing]]))
    with pytest.raises(fp.RegistryError, match="Kept is not a registered"):
        describe(Safeguarded(Kept()))


NESTED: Any = {"accelerator": "picard", "options": {}}
for _ in range(20):
    NESTED = {"accelerator": "safeguarded", "options": {"inner": NESTED}}


@pytest.mark.parametrize(
    "description",
    [
        None,
        "picard",
        [],
        {},
        {"accelerator": "picard"},
        {"accelerator": "picard", "options": []},
        {"accelerator": 3, "options": {}},
        {"accelerator": "picard", "options": {}, "more": 1},
        {"accelerator": "safeguarded", "options": {"inner": {"hidden": 3}}},
        NESTED,
    ],
)
def test_what_is_no_description_is_refused(description: Any) -> None:
    with pytest.raises(ValueError, match=r"^(safeguarded: )*not the description of an accelerator$"):
        build(description, None)


def test_descriptions_that_do_not_fit_name_the_accelerator() -> None:
    with pytest.raises(ValueError, match=r"^anderson-2: memory: expected 1 to 10000, got 0"):
        build({"accelerator": "anderson-2", "options": {"memory": 0}}, None)
    with pytest.raises(ValueError, match=r"^gru: .*unexpected keyword argument 'hiden'"):
        build({"accelerator": "gru", "options": {"hiden": 3}}, None)
    steep = fp.Signature(3, averagedness=1.0)
    with pytest.raises(ValueError, match=r"^relaxed: relaxation: "):
        build({"accelerator": "relaxed", "options": {}}, steep)
    with pytest.raises(fp.RegistryError, match="no accelerator named 'x'"):
        build({"accelerator": "safeguarded", "options": {"inner": {"accelerator": "x", "options": {}}}}, None)


# -- for one signature only


@pytest.mark.parametrize("name", [n for n in fp.accelerators.names() if n not in ("schedule", "safeguarded")])
def test_binding_keeps_the_arguments(name: str) -> None:
    made = fp.accelerators.create(name)
    bound = made.bind(SIGNATURE)
    assert bound.bind(SIGNATURE) is bound
    if isinstance(made, Learned):
        assert bound is not made
        assert made.signature is None
        assert list(made.parameters()) == []
        assert {**options(bound), "signature": None, "base": None} == {**options(made), "base": None}
        with pytest.raises(ValueError, match=r"was built for another map \(size: 6, not 5"):
            bound.bind(fp.Signature(6, coordinates={"map": "specimen"}))
    else:
        assert bound is made
