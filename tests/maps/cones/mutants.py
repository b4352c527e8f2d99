"""Cones that are wrong in one way, each under the check that must catch it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from maps.cones import PSD, Cone, Exponential, Nonnegative, SecondOrder

MUTANTS: list[Any] = []


def mutant(check: str, *arguments: Any) -> Callable[[type[Cone]], type[Cone]]:
    """Register a class, made with these arguments, under the check that must catch it."""

    def register(kind: type[Cone]) -> type[Cone]:
        MUTANTS.append(pytest.param(check, kind(*arguments), id=f"{check}-{kind.__name__}"))
        return kind

    return register


# ------------------------------------------------------------------ functions of tensors


@mutant("shape-and-dtype", 2)
class DoublePrecisionConstant(Nonnegative):
    def project(self, z):
        return torch.maximum(z, torch.zeros(self.dim, dtype=torch.float64))


@mutant("shape-and-dtype", 1)
class BareSqueeze(Nonnegative):
    def project(self, z):
        return z.relu().squeeze()


@mutant("shape-and-dtype", 2)
class NotFiniteAtApex(SecondOrder):
    def project(self, z):
        return super().project(z) * (z.norm(dim=1, keepdim=True) / z.norm(dim=1, keepdim=True))


@mutant("precision", 2)
class SinglePrecision(Nonnegative):
    def project(self, z):
        return z.to(torch.float32).relu().to(z.dtype)

    def project_dual(self, z):
        return self.project(z)


@mutant("precision", 3)
class HalfPrecision(SecondOrder):
    """Too coarse in single precision only."""

    def project(self, z):
        return super().project(z) if z.dtype == torch.float64 else super().project(z.to(torch.bfloat16)).to(z.dtype)


@mutant("inputs-untouched", 2)
class InPlace(Nonnegative):
    def project(self, z):
        return z.relu_()


@mutant("any-layout", 2)
class View(Nonnegative):
    def project(self, z):
        return z.view(-1).relu().view(z.shape)


@mutant("any-layout", 3)
class Strided(Nonnegative):
    """Reads memory as if it were contiguous."""

    def project(self, z):
        return torch.as_strided(z, z.shape, (z.shape[1], 1), z.storage_offset()).relu()


@mutant("repeatable", 2)
class Counting(Nonnegative):
    calls = 0

    def project(self, z):
        self.calls += 1
        return z.relu() * (1 + 1e-15 * self.calls)


@mutant("global-state", 2)
class Random(Nonnegative):
    def project(self, z):
        return z.relu() + 0 * torch.rand(1).to(z)


# ------------------------------------------------------------------ rows


@mutant("rows-independent", 2)
class NaNSpreads(Nonnegative):
    def project(self, z):
        return z.relu() + 0 * z.max()


@mutant("rows-independent", 3)
class UnmaskedEigh(PSD):
    """LAPACK refuses the whole batch when one matrix has NaN."""

    def project(self, z):
        torch.linalg.eigh(self.matrix(z.detach()))
        return super().project(z)


@mutant("batch-size", 3)
class SameForAll(SecondOrder):
    """Depends on the size of the batch alone."""

    def project(self, z):
        return super().project(z) * (1 + 1e-9 * (len(z) > 1))


@mutant("vmap", 2)
class Branch(Nonnegative):
    def project(self, z):
        return torch.zeros_like(z) if bool((z <= 0).all()) else z.relu()


# ------------------------------------------------------------------ geometry


@mutant("membership", 2)
class DualOfAnother(Nonnegative):
    def project_dual(self, z):
        return z


@mutant("idempotent", 3)
class WrongFactor(SecondOrder):
    def project(self, z):
        t, v = z[:, :1], z[:, 1:]
        n = v.norm(dim=1, keepdim=True)
        boundary = (t + n) / 2**0.5 * torch.cat([torch.ones_like(t), v / torch.where(n > 0, n, 1.0)], 1)
        return torch.where(n <= t, z, torch.where(n <= -t, 0.0, boundary))


@mutant("idempotent", 3)
class IntoTheInterior(SecondOrder):
    def project(self, z):
        return super().project(z) * torch.tensor([1.001, 1, 1]).to(z)


@mutant("homogeneous", 2)
class Shifted(Nonnegative):
    def project(self, z):
        return z.clamp(min=1e-3)


@mutant("homogeneous", 2)
class Threshold(Nonnegative):
    """Small numbers count as 0."""

    def project(self, z):
        return torch.where(z > 1e-7, z, 0.0)


@mutant("nonexpansive", 2)
class Oblique(Cone):
    """Onto a line, but not at right angles."""

    def project(self, z):
        return torch.stack([z[:, 0] - z[:, 1], torch.zeros_like(z[:, 0])], 1)


@mutant("nearest-point", 3)
class Shell(SecondOrder):
    """The surface of the cone alone, which is not convex."""

    def project(self, z):
        t, v = z[:, :1], z[:, 1:]
        n = v.norm(dim=1, keepdim=True)
        direction = torch.where(n > 0, v / torch.where(n > 0, n, 1.0), torch.tensor([1.0, 0.0]).to(z))
        return ((t + n) / 2).relu() * torch.cat([torch.ones_like(t), direction], 1)


@mutant("nearest-point", 2)
class MissingRoot(PSD):
    """A vector of the lower triangle, off-diagonal entries not times sqrt(2)."""

    def __init__(self, order):
        super().__init__(order)
        self._root = torch.ones_like(self._root)


@mutant("nonexpansive")
class WrongBranch(Exponential):
    """Behind the face, its edge is taken for the nearest point."""

    def project(self, z):
        x, y, w = z.unbind(1)
        edge = torch.stack([torch.zeros_like(x), torch.zeros_like(y), w.relu()], 1)
        return torch.where(((x < 0) & (y < 0))[:, None], edge, super().project(z))


@mutant("moreau", 3)
class NotSelfDual(Cone):
    """{||v|| <= 2 t}, whose dual is {2 ||v|| <= t}."""

    def project(self, z):
        t, v = z[:, :1], z[:, 1:]
        n = v.norm(dim=1, keepdim=True)
        boundary = (t + 2 * n) / 5 * torch.cat([torch.ones_like(t), 2 * v / torch.where(n > 0, n, 1.0)], 1)
        return torch.where(n <= 2 * t, z, torch.where(2 * n <= -t, 0.0, boundary))

    def project_dual(self, z):
        return self.project(z)


@mutant("dual", 2)
class DualTooLarge(Nonnegative):
    """The dual of the first coordinate alone."""

    def project_dual(self, z):
        return torch.cat([z[:, :1].relu(), z[:, 1:]], 1)


@mutant("inequality", 3)
class LastCoordinate(SecondOrder):
    """A second-order cone, but not the one that was meant."""

    def project(self, z):
        return super().project(z.roll(1, 1)).roll(-1, 1)

    @staticmethod
    def inequality(z):
        return z[:, 1:].norm(dim=1) - z[:, 0]


@mutant("inequality", 2)
class TooSmall(Nonnegative):
    """A ray of the orthant that was meant."""

    def project(self, z):
        return z.mean(1, keepdim=True).relu().expand(z.shape)

    def project_dual(self, z):
        return z + self.project(-z)

    @staticmethod
    def inequality(z):
        return (-z).amax(1)
