"""Tuning: better than the defaults, repeatable, and a settings file that keeps what it should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fixedpoint as fp
from accelerators import Relaxed
from fixedpoint import Range
from fixedpoint.experiments import evaluation, tuning
from fixedpoint.experiments.evaluation import evaluations_to, generator, trace
from fixedpoint.experiments.tuning import Tuned
from tests import support

ENTRY = Tuned({"scale": 0.5}, {"memory": 7}, 12.5)


def test_tuning_beats_the_defaults() -> None:
    budget: dict[str, Any] = {"instances": 4, "steps": 20, "trials": 16, "seed": 0}
    found = tuning.tune("diabetes-lasso", "anderson-2", **budget)

    def needed(settings: Tuned) -> float:
        family = fp.families.create("diabetes-lasso", **settings.family)
        problem = family.sample(4, generator=generator(0, "train"))
        method = fp.accelerators.create("anderson-2", **settings.accelerator)
        errors = trace(family, method, problem, 60)[0].numpy()
        return float(np.mean(evaluations_to(1e-3, np.arange(1, 61), errors)))

    assert needed(found) < needed(Tuned({}, {}, 0)) - 1


def test_tuning_is_repeatable_and_tries_no_more_than_asked() -> None:
    seen: list[tuple[int, float]] = []

    def tuned(seed: int, **options: Any) -> Tuned:
        return tuning.tune("elastic-net", "anderson-2", instances=2, steps=6, trials=10, seed=seed, **options)

    first = tuned(0, report=lambda count, best: seen.append((count, best)))
    assert first == tuned(0)
    assert first != tuned(1)
    assert [count for count, _ in seen] == list(range(1, len(seen) + 1))
    assert len(seen) <= 10
    assert [best for _, best in seen] == sorted([best for _, best in seen], reverse=True)
    assert seen[-1][1] == first.score
    assert 3 <= first.accelerator["memory"] <= 25
    assert 0.6 <= first.family["step"] <= 1.95


def test_tuning_never_sees_what_is_compared_on(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = []

    def noted(seed: int, split: str) -> torch.Generator:
        streams.append((seed, split))
        return generator(seed, split)

    monkeypatch.setattr(tuning, "generator", noted)
    tuning.tune("elastic-net", "picard", instances=2, steps=3, trials=10, seed=4)
    assert set(streams) == {(4, "train")}


def test_in_a_named_setting_the_map_is_given() -> None:
    budget: dict[str, Any] = {"instances": 2, "steps": 40, "trials": 10}
    found = tuning.tune("elastic-net", "anderson-2", **budget, fixed={"step": 1.2})
    assert found.family == {}
    assert set(found.accelerator) == {"memory", "start"}

    def score(**settings: Any) -> float:
        family = fp.families.create("elastic-net", **settings)
        problem = family.sample(2, generator=generator(0, "train"))
        method = fp.accelerators.create("anderson-2", **found.accelerator)
        return evaluation.score(trace(family, method, problem, 40)[0].numpy(), 40)

    assert found.score == score(step=1.2) != score()


def test_accelerators_that_refuse_the_map_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over-relaxation that this map does not stand is tried and dropped."""
    monkeypatch.setattr(Relaxed, "tunable", {"relaxation": Range(0.5, 1.9)})
    found = tuning.tune("elastic-net", "relaxed", instances=2, steps=6, trials=20)
    made = fp.accelerators.create("relaxed", **found.accelerator)
    assert made.bind(fp.families.create("elastic-net", **found.family).map.signature) is made


def test_what_has_no_settings_keeps_its_defaults() -> None:
    found = tuning.tune("affine", "picard", instances=2, steps=5, trials=10)
    assert (found.family, found.accelerator) == ({}, {})


@pytest.mark.parametrize("argument", ["instances", "steps", "trials"])
def test_a_budget_too_small_is_refused(argument: str) -> None:
    budget: dict[str, Any] = {argument: 0}
    with pytest.raises(ValueError, match=f"^{argument}: expected at least"):
        tuning.tune("affine", "picard", **budget)


def test_saving_keeps_the_other_accelerators(tmp_path: Path) -> None:
    path = tmp_path / "new" / "affine.json"
    tuning.save(path, "affine", {"picard": ENTRY}, {"seed": 1})
    tuning.save(path, "affine", {"anderson-2": ENTRY}, {"seed": 2})
    tuning.save(path, "affine", {"picard": ENTRY._replace(score=3.0)}, {"seed": 3})
    entries = tuning.load(path, "affine")["accelerators"]
    assert list(entries) == ["anderson-2", "picard"]
    assert entries["anderson-2"] == {**ENTRY._asdict(), "provenance": {"seed": 2}}
    assert entries["picard"] == {**ENTRY._asdict(), "score": 3.0, "provenance": {"seed": 3}}


def test_settings_of_another_family_are_neither_read_nor_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    tuning.save(path, "affine", {"picard": ENTRY}, {})
    before = path.read_text()
    with pytest.raises(ValueError, match="belongs to family 'affine', not 'lasso'"):
        tuning.load(path, "lasso")
    with pytest.raises(ValueError, match="belongs to family 'affine', not 'lasso'"):
        tuning.save(path, "lasso", {"picard": ENTRY}, {})
    assert path.read_text() == before


def _entry(**changes: Any) -> dict[str, Any]:
    return {"family": "affine", "accelerators": {"picard": {**ENTRY._asdict(), **changes}}}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        '{"accelerators": {}}',
        '{"family": "affine"}',
        '{"family": "affine", "accelerators": []}',
        '{"family": "affine", "accelerators": {"picard": 3}}',
        '{"family": "affine", "accelerators": {"picard": {}}}',
        json.dumps(_entry(family=None)),
        json.dumps(_entry(accelerator=[1])),
        json.dumps(_entry(score="good")),
        json.dumps(_entry(score=float("nan"))),
    ],
)
def test_what_is_no_settings_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"settings file .*settings\.json: cannot be read"):
        tuning.load(path, "affine")


def test_a_failure_while_saving_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "settings.json"
    tuning.save(path, "affine", {"picard": ENTRY}, {})
    before = path.read_text()
    support.fill_disk(monkeypatch)
    with pytest.raises(OSError, match="disk full"):
        tuning.save(path, "affine", {"anderson-2": ENTRY}, {})
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["settings.json"]
