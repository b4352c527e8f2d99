"""Products of cones: rows, blocks, what is projected together, and specifications that are none."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import jacrev, vmap

from maps.cones import (
    PSD,
    Box,
    Cone,
    Dual,
    Exponential,
    L1Norm,
    Nonnegative,
    NuclearNorm,
    Power,
    ProductCone,
    SecondOrder,
    Zero,
    check_cone,
)
from tests.maps.cones.samples import INF, MIXED, normal

BLOCKS: list[Cone] = [
    *(Zero(1), Nonnegative(2), Box([-1.0, 0.0], [1.0, INF])),
    *map(SecondOrder, (3, 1, 2, 0, 3)),
    *map(PSD, (2, 1, 2)),
    *(Exponential(), Exponential(), Dual(Exponential())),
    *map(Power, (0.5, -0.3, 1.0)),
    *(L1Norm(2), L1Norm(3, 0.5)),
    *(NuclearNorm(2, 2), NuclearNorm(1, 3), NuclearNorm(2, 2)),
]
"""Those of MIXED."""


def one_by_one(z: Tensor, blocks: list[Cone], method: str) -> Tensor:
    parts = z.split([cone.dim for cone in blocks], 1)
    return torch.cat([getattr(cone, method)(part) for cone, part in zip(blocks, parts, strict=True)], 1)


@pytest.mark.parametrize("method", ["project", "project_dual"])
def test_block_by_block(method: str) -> None:
    cone = ProductCone(MIXED)
    z = normal(cone, 20)
    assert cone.dim == sum(block.dim for block in BLOCKS)
    assert torch.allclose(getattr(cone, method)(z), one_by_one(z, BLOCKS, method), rtol=0, atol=1e-14)
    derivative = vmap(jacrev(lambda row: getattr(cone, method)(row[None])[0]))(z)
    expected = vmap(jacrev(lambda row: one_by_one(row[None], BLOCKS, method)[0]))(z)
    assert torch.allclose(derivative, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("sizes", [[2, 3, 2, 3], [4, 4, 4], [3, 0, 1, 3, 1], [1], [0], []], ids=str)
def test_equal_blocks_are_projected_together(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    for key, kind in (("q", SecondOrder), ("s", PSD)):

        def counted(self: Cone, z: Tensor, project: Any = kind.project) -> Tensor:
            calls.append(self.dim)
            return project(self, z)

        cone = ProductCone({"l": 2, key: sizes})
        z = normal(cone, 7)
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(kind, "project", counted)
            p = cone.project(z)
        assert sorted(calls) == sorted({kind(size).dim for size in sizes} - {0})
        assert torch.allclose(p, one_by_one(z, [Nonnegative(2), *map(kind, sizes)], "project"), rtol=0, atol=1e-14)


def test_layout() -> None:
    cone = ProductCone({"q": [3, 3, 2, 3], "z": 1, "l": 2})
    assert [(type(run.cone).__name__, run.start, run.blocks) for run in cone.runs] == [
        ("Zero", 0, 1),
        ("Nonnegative", 1, 1),
        ("SecondOrder", 3, 2),
        ("SecondOrder", 9, 1),
        ("SecondOrder", 11, 1),
    ]
    assert [group.blocks for group in cone.groups] == [1, 1, 3, 1]
    assert cone.dim == cone.runs[-1].stop == 14
    assert cone.equalities == 1
    assert ProductCone({"l": 2}).equalities == 0


def test_specification() -> None:
    """What is empty does not count, nor does the order of the keys; all of it is JSON."""
    cone = ProductCone({**MIXED, "p": [0.5, -0.3, 1]})
    assert list(cone.spec) == list(MIXED)
    assert ProductCone(json.loads(json.dumps(cone.spec))).spec == cone.spec
    assert ProductCone({"z": 0, "q": [], "l": 2, "bu": [], "bl": []}).spec == ProductCone({"l": 2.0}).spec == {"l": 2}
    assert ProductCone({}).dim == 0
    assert ProductCone({}).project(torch.zeros(3, 0)).shape == (3, 0)
    assert ProductCone({"q": 3, "p": 0.5}).spec == {"q": [3], "p": [0.5]}
    assert ProductCone({"q": torch.tensor([3, 2])}).spec == {"q": [3, 2]}
    registered = ProductCone({"power": [[0.5]], "nonnegative": [[1], [2]], "l": 1})
    assert list(registered.spec) == ["l", "nonnegative", "power"]
    z = normal(registered, 5)
    blocks = [Nonnegative(1), Nonnegative(1), Nonnegative(2), Power(0.5)]
    assert torch.allclose(registered.project(z), one_by_one(z, blocks, "project"))


def test_bounds() -> None:
    cone = ProductCone(MIXED)
    assert cone.box is not None
    assert cone.box.bounds.tolist() == [[-1.0, 0.0], [1.0, INF]]
    z, d = normal(cone, 4), normal(cone, 4, seed=1).exp()
    bounds = cone.rescaled(d)
    assert bounds is not None
    box = Box([-1.0, 0.0], [1.0, INF])
    assert torch.equal(bounds, box.rescaled(d[:, 3:6]))
    for method in ("project", "project_dual"):
        found = getattr(cone, method)(z, bounds)
        assert torch.equal(found[:, 3:6], getattr(box, method)(z[:, 3:6], bounds))
        assert torch.equal(found[:, 6:], getattr(cone, method)(z)[:, 6:])
    without = ProductCone({"l": 2})
    assert (without.box, without.rescaled(torch.ones(1, 2))) == (None, None)


def test_scaling_is_shared_within_blocks() -> None:
    cone = ProductCone({"l": 2, "bu": [1.0], "bl": [0.0], "q": [2, 3, 2]})
    d = torch.tensor([[1.0, 2.0, 7.0, 9.0, 3.0, 5.0, 1.0, 2.0, 6.0, 4.0, 0.0]])
    assert cone.share_within_blocks(d, "max").tolist() == [[1, 2, 7, 9, 5, 5, 6, 6, 6, 4, 4]]
    assert cone.share_within_blocks(d, "mean").tolist() == [[1, 2, 7, 9, 4, 4, 3, 3, 3, 2, 2]]
    assert cone.share_within_blocks(d, "max", box=True).tolist() == [[1, 2, 9, 9, 5, 5, 6, 6, 6, 4, 4]]


@pytest.mark.slow
@pytest.mark.parametrize("cone", ProductCone.examples(), ids=str)
def test_the_laws_of_cones(cone: Cone) -> None:
    check_cone(cone, examples=10)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (3, "cones: expected a mapping"),
        ({"zz": 3}, "cones: unknown key 'zz', known are z, .*nuclear-norm.*did you mean 'z'"),
        ({"nuclear-nrm": [[2, 2]]}, "unknown key 'nuclear-nrm'.*did you mean 'nuclear-norm'"),
        ({"f": 3}, "cones: unknown key 'f'"),
        ({"l": -1}, r"cones\['l'\]: expected a whole number"),
        ({"l": 2.5}, r"cones\['l'\]"),
        ({"l": [2]}, r"cones\['l'\]"),
        ({"ep": True}, r"cones\['ep'\]"),
        ({"q": [3, -1]}, r"cones\['q'\]: expected a list of lengths"),
        ({"q": ["a"]}, r"cones\['q'\]"),
        ({"q": [float("nan")]}, r"cones\['q'\]"),
        ({"s": [1.5]}, r"cones\['s'\]: expected a list of orders k \(each takes k \(k \+ 1\) / 2 rows\)"),
        ({"bu": [1.0]}, r"cones\['bl'\]: expected as many bounds as cones\['bu'\], 1, got 0"),
        ({"bu": [1.0, 0.0], "bl": [0.0, 1.0]}, r"cones\['bl'\]: expected at most cones\['bu'\] at index 1"),
        ({"bu": ["x"], "bl": [0.0]}, r"cones\['bu'\]: expected a list of numbers"),
        ({"p": [0.5, 1.5]}, r"cones\['p'\]: expected a number between -1 and 1, got 1.5"),
        ({"p": [float("nan")]}, r"cones\['p'\]: expected a number between -1 and 1, got nan"),
        ({"nuclear-norm": [2, 3]}, r"cones\['nuclear-norm'\]: expected a list with the arguments of each cone"),
        ({"nuclear-norm": [[2, 3], [2]]}, r"cones\['nuclear-norm'\]\[1\]: .*columns"),
        ({"psd": [[-1]]}, r"cones\['psd'\]\[0\]: order: expected a whole number"),
    ],
)
def test_bad_specifications(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ProductCone(spec)
    assert str(caught.value).startswith("cones")


def test_a_second_box_is_refused() -> None:
    for spec in ({"box": [[[-1.0], [1.0]], [[-1.0], [5.0]]]}, {"bu": [1.0], "bl": [-1.0], "box": [[[-1.0], [5.0]]]}):
        with pytest.raises(ValueError, match=r"^cones: expected at most one box"):
            ProductCone(spec)


def test_arguments_of_registered_cones_are_plain_numbers() -> None:
    slopes = torch.tensor([2.00003, 2.00004], dtype=torch.float64)  # which print alike
    cone = ProductCone({"l1-norm": [[np.int64(1), slopes[0]], [1, slopes[1]]]})
    assert cone.spec == {"l1-norm": [[1, 2.00003], [1, 2.00004]]}
    assert len(cone.groups) == 2
