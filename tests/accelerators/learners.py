"""Learned accelerators for tests: small ones, with arbitrary weights where untrained ones would say nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import fixedpoint as fp
from fixedpoint.learning.learned import Examples
from fixedpoint.solve.loop import Iteration, roll
from maps.elastic_net import RandomElasticNet

SIZES: dict[str, dict[str, Any]] = {
    "gru": {"hidden": 6, "steps": 5},
    "lstm": {"hidden": 6, "steps": 5},
    "coordinate-gru": {"hidden": 4, "steps": 5},
    "warm-start": {"width": 6},
    "mixing": {"memory": 4, "width": 6, "steps": 8},
}
RECURRENT = ["gru", "lstm", "coordinate-gru"]
FAMILY = RandomElasticNet(5, step=1.0)


def problems(batch: int = 3, seed: int = 0) -> Any:
    return FAMILY.sample(batch, generator=torch.Generator().manual_seed(seed))


def examples(family: fp.ProblemFamily = FAMILY, count: int = 20, solutions: torch.Tensor | None = None) -> Examples:
    """What training shows before the first update."""
    problem = family.sample(count, generator=torch.Generator().manual_seed(9))
    context = family.map.setup(problem)
    path = roll(Iteration(family.map, context, fp.accelerators.create("picard")), 8)
    return Examples(path.x, path.fx - path.x, family.map.featurize(context), solutions)


def untrained(name: str, map: fp.FixedPointMap = FAMILY.map, **options: Any) -> Any:
    return fp.accelerators.create(name, **{**SIZES[name], **options}).bind(map.signature)


def taught(name: str, map: fp.FixedPointMap = FAMILY.map, seed: int = 3, size: float = 0.4, **options: Any) -> Any:
    """One with random weights, fitted on plain iterations of `FAMILY` where it serves that."""
    made = untrained(name, map, **options)
    if map is FAMILY.map:
        made.fit(examples())
    return scrambled(made, seed, size)


def scrambled(module: nn.Module, seed: int = 3, size: float = 0.4) -> Any:
    """The module with random parameters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(size * torch.randn(p.shape, generator=generator))
    return module


def evaluations(batch: int, count: int, size: int = 5, dtype: torch.dtype = torch.float64) -> list[fp.Evaluation]:
    """Arbitrary evaluations, of ever smaller residuals."""
    generator = torch.Generator().manual_seed(5)
    found = []
    for k in range(count):
        x, residual = (torch.randn(batch, size, generator=generator, dtype=torch.float64).to(dtype) for _ in "xr")
        residual = residual * 10.0**-k
        found.append(fp.Evaluation(x, x + residual, residual))
    return found


def features(batch: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """As the map of `FAMILY` has them, whatever the batch."""
    return FAMILY.map.featurize(FAMILY.map.setup(problems(7)))[:batch].to(dtype)


def begin(method: Any, batch: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, Any]:
    """Its start and first state on `batch` instances of `FAMILY`."""
    given = features(batch, dtype) if method.uses_features else None
    return method.init(torch.zeros(batch, 5, dtype=dtype), given, None)
