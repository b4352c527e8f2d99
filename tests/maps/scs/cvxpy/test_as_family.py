"""A `CvxpyFamily` is a family of problems: it is sampled, tuned, trained and compared like the registered ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cvxpy as cp
import pytest
import torch

import fixedpoint as fp
from fixedpoint.checks import check_map
from fixedpoint.experiments import tuning
from fixedpoint.experiments.comparison import compare
from fixedpoint.experiments.evaluation import generator
from fixedpoint.plugins import checkpoint
from fixedpoint.protocol import ProblemFamily
from maps.scs.cvxpy import CvxpyFamily


def made(sampler: Any = "normal", **settings: Any) -> CvxpyFamily:
    p, x = cp.Parameter(3, name="p"), cp.Variable(3)

    def normal(batch: int, generator: torch.Generator) -> list[torch.Tensor]:
        return [torch.randn(batch, 3, generator=generator, dtype=torch.float64)]

    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p) + cp.norm1(x)), [cp.sum(x) == 1])
    return CvxpyFamily(problem, [p], normal if sampler == "normal" else sampler, **settings)


def test_samples_are_the_sampler_s() -> None:
    family = made()
    drawn = family.sample(4, generator=torch.Generator().manual_seed(0))
    values = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert drawn.batch == 4
    assert torch.equal(drawn.b, family.program([values]).b)


def test_the_map_keeps_the_laws() -> None:
    family = made()
    report = check_map(family.map, family.sample(4, generator=torch.Generator().manual_seed(0)))
    assert {r.name for r in report.skipped} <= {"reference", "traits"}, str(report)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (None, r"sampler: this CvxpyFamily has none .*sampler=f, where f\(batch, generator\).*for each of p"),
        (lambda batch, generator: [torch.ones(batch + 1, 3)], "sampler: expected values for 4 instances, got 5"),
        (lambda batch, generator: [torch.ones(3)], "sampler: expected values for 4 instances, got no batch axis"),
        (lambda batch, generator: [torch.ones(batch, 2)], r"sampler: p: expected shape \(3,\)"),
    ],
)
def test_a_sampler_that_is_missing_or_wrong(sampler: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(sampler).sample(4, generator=torch.Generator())


def test_it_can_be_made_again_with_other_settings() -> None:
    family = made(scale=2.0)
    other = family.remade(alpha=1.1, quadratic=False)
    assert (other.map.settings.scale, other.map.settings.alpha, other.form) == (2.0, 1.1, "conic")
    assert (family.map.settings.scale, family.map.settings.alpha, family.form) == (2.0, 1.5, "quadratic")
    assert other.remade(quadratic=True).canonical is family.canonical, "compiled once"
    assert set(family.tunable) >= {"scale", "alpha", "quadratic", "zero_cone_factor"}
    with pytest.raises(TypeError, match="sise"):
        family.remade(sise=3)


def test_what_cannot_matter_is_not_tuned() -> None:
    A, x = cp.Parameter((2, 2), name="A"), cp.Variable(2)
    family = CvxpyFamily(cp.Problem(cp.Minimize(cp.sum(x)), [A @ x >= 1]), [A])
    assert not {"quadratic", "zero_cone_factor"} & set(family.tunable)
    assert "shared" not in [family.tunable["normalize"].at(unit) for unit in (0.0, 0.5, 0.99)]


def test_tuning_and_comparing_an_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    family = made()
    found = tuning.tune(family, "anderson-2", instances=3, steps=30, trials=12)
    assert found.family.keys() == family.tunable.keys()
    file = tmp_path / "settings.json"
    tuning.save(file, compare.label(family, None), {"anderson-2": found}, {})
    records = compare.compare(family, ["anderson-2"], instances=3, steps=40, settings=file)
    ours = {row["variant"]: row for row in records if not row["peer"]}
    assert ours.keys() == {"default", "tuned"}
    assert {row["family"] for row in records} == {"CvxpyFamily"}
    assert {row["error"] for row in records} == {"kkt"}
    assert ours["tuned"]["settings"] == {"family": found.family, "accelerator": found.accelerator}
    assert ours["tuned"]["error_at"]["40"]["median"] < 1e-5
    (peer,) = (row for row in records if row["accelerator"] == "scs, its defaults")
    assert peer["evaluations_to"]["1e-3"]["median"] is not None


def test_training_and_comparing_an_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    family = made(scale=2.0)
    plan = {"updates": 2, "instances": 8, "batch": 4, "validation": 4, "horizon": 4, "evaluations": 8}
    folder = compare.LOCAL_TRAINING / compare.label(family, None) / "warm-start+anderson-2"
    trained = fp.train(family, "warm-start+anderson-2", out=folder, **plan)
    assert trained.signature is not None
    assert trained.signature.hash == family.map.signature.hash
    assert checkpoint.load(folder / "trained.safetensors").provenance == trained.provenance
    records = compare.compare(family, ["warm-start+anderson-2", "mean-start+anderson-2"], instances=2, steps=8)
    rows = {row["accelerator"]: row for row in records if not row["peer"]}
    assert rows["warm-start+anderson-2"]["training"]["updates"] == 2
    assert rows["mean-start+anderson-2"]["variant"] == "trained", "fitted on the spot"
    with pytest.raises(ValueError, match="scale"):
        compare.configure(made(scale=3.0), "warm-start+anderson-2", None)


def test_a_family_object_without_a_way_to_remake_it_has_no_settings_to_tune() -> None:
    class Fixed(ProblemFamily):
        map = made().map

        def sample(self, batch: int, *, generator: torch.Generator) -> Any:
            return made().sample(batch, generator=generator)

    fixed = Fixed()
    assert fp.families.create(fixed) is fixed
    with pytest.raises(TypeError, match=r"this Fixed object has no `remade\(\*\*options\)` to set scale with"):
        fp.families.create(fixed, scale=2.0)
    records = compare.compare(fixed, ["picard"], instances=2, steps=5)
    assert [row["family"] for row in records] == ["Fixed"]
    assert fixed.sample(2, generator=generator(0, "test")).batch == 2
