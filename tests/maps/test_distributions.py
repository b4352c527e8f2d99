"""What every registered family promises: features as wide as it says, shifts that change the problems and no more."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fixedpoint as fp
from fixedpoint.tensors import pytrees

NAMES = fp.families.names()


def drawn(family: fp.ProblemFamily, seed: int = 0) -> dict[str, torch.Tensor]:
    return pytrees.tensors(family.sample(3, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("name", NAMES)
def test_features_are_as_many_as_the_signature_says(name: str) -> None:
    options: list[dict[str, Any]] = [{}, *({**o} for o in fp.families.load(name).settings.values())]
    for chosen in options:
        family = fp.families.create(name, **chosen)
        context = family.map.setup(family.sample(3, generator=torch.Generator().manual_seed(1)))
        features = family.map.featurize(context)
        assert features.ndim == 2
        assert torch.isfinite(features).all()
        if name == "affine":
            assert family.map.signature.features == 0, "known only once a problem is seen"
        else:
            assert features.shape == (3, family.map.signature.features)
            assert not torch.equal(features[0], features[1]), "instances can be told apart"


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_changes_the_problems_and_not_the_map(name: str) -> None:
    kind = fp.families.load(name)
    standard = fp.families.create(name)
    before = drawn(standard)
    assert kind.shifts or name == "affine", "nothing to show how an accelerator fares elsewhere"
    for shift, options in kind.shifts.items():
        shifted = fp.families.create(name, **options)
        assert shifted.map.signature.hash == standard.map.signature.hash, shift
        assert shifted.map.signature.features == standard.map.signature.features, shift
        after = drawn(shifted)
        assert after.keys() == before.keys(), shift
        assert any(a.shape != before[key].shape or not torch.equal(a, before[key]) for key, a in after.items()), shift
        assert all(torch.isfinite(t).all() for t in after.values() if t.is_floating_point()), shift
        solution = fp.solve(shifted.map, shifted.sample(2, generator=torch.Generator().manual_seed(0)), tolerance=1e-1)
        assert torch.isfinite(solution.residual).all(), shift


@pytest.mark.parametrize("name", NAMES)
def test_shifts_are_laid_over_the_settings(name: str) -> None:
    kind = fp.families.load(name)
    for setting in kind.settings.values():
        plain = fp.families.create(name, **setting)
        for options in kind.shifts.values():
            shifted = fp.families.create(name, **{**setting, **options})
            assert shifted.map.signature.hash == plain.map.signature.hash


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lasso", {"form": "dual"}, "form"),
        ("lasso", {"noise": -1.0}, "noise"),
        ("lasso", {"size": -1.0}, "size"),
        ("lasso", {"nonzeros": 51}, "nonzeros: expected a whole number from 0 to 50, got 51"),
        ("lasso", {"nonzeros": 2.5}, "nonzeros: expected a whole number"),
        ("diabetes-lasso", {"noise": -1.0}, "noise"),
        ("diabetes-lasso", {"size": float("nan")}, "size"),
        ("diabetes-lasso", {"penalties": [0.5, 0.1]}, "penalties"),
        ("diabetes-lasso", {"penalties": [0.0, 0.1]}, "penalties"),
        ("diabetes-lasso", {"penalties": [0.1]}, "penalties"),
        ("robust-kalman", {"form": "dual"}, "form"),
        ("robust-kalman", {"noise": -1.0}, "noise"),
        ("robust-kalman", {"size": float("nan")}, "size"),
        ("robust-kalman", {"outliers": 1.5}, "outliers: expected a probability, got 1.5"),
        ("robust-pca", {"form": "quadratic"}, "form: expected one of nuclear, norms, conic, got 'quadratic'"),
        ("robust-pca", {"rank": 4}, "rank: expected a whole number from 1 to 3, got 4"),
        ("robust-pca", {"rank": True}, "rank"),
        ("robust-pca", {"outliers": 0}, "outliers: expected a whole number from 1 to 90, got 0"),
        ("robust-pca", {"outliers": 9.5}, "outliers"),
        ("robust-pca", {"size": 0.0}, "size"),
        ("elastic-net", {"noise": -0.1}, "noise"),
        ("elastic-net", {"density": 1.5}, "density"),
        ("elastic-net", {"spread": -1.0}, "spread"),
        ("elastic-net", {"beta": 0}, "beta"),
    ],
)
def test_bad_arguments(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.families.create(name, **options)
