"""Cones whose derivatives are wrong in one way, each under the check that must catch it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from maps.cones import PSD, Nonnegative, SecondOrder

from .mutants import mutant


class _Ruled(torch.autograd.Function):
    """The projection onto the second-order cone with the derivative that a cone gives."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z, cone):
        return SecondOrder(cone.dim).project(z)

    @staticmethod
    def setup_context(ctx, inputs, output):
        z, ctx.cone = inputs
        ctx.save_for_backward(z)
        ctx.save_for_forward(z)

    @staticmethod
    def backward(ctx, g):
        return ctx.cone.transposed(*ctx.saved_tensors, g), None

    @staticmethod
    def jvp(ctx, v, _):
        return ctx.cone.rule(*ctx.saved_tensors, v)


class Ruled(SecondOrder):
    """A right derivative, written by hand."""

    function: type[torch.autograd.Function] = _Ruled
    scale = 1.0

    def project(self, z):
        return self.function.apply(z, self)

    def rule(self, z: Tensor, d: Tensor) -> Tensor:
        """The derivative at z times d, d times the derivative in `transposed`."""
        t, v, dt, dv = z[:, :1], z[:, 1:], d[:, :1], d[:, 1:]
        n = v.norm(dim=1, keepdim=True)
        some = torch.where(n > 0, n, 1.0)
        u, ratio = v / some, t / some
        along = (u * dv).sum(1, keepdim=True)
        boundary = self.boundary(u, ratio, dt, dv, along)
        return self.scale * torch.where(n <= t, d, torch.where(n <= -t, 0.0, boundary))

    def transposed(self, z: Tensor, d: Tensor) -> Tensor:
        return self.rule(z, d)

    def boundary(self, u: Tensor, ratio: Tensor, dt: Tensor, dv: Tensor, along: Tensor) -> Tensor:
        return torch.cat([dt + along, u * dt + (1 + ratio) * dv - ratio * along * u], 1) / 2


@mutant("derivative-finite", 3)
class NormAtZero(SecondOrder):
    """where() around a division by 0."""

    def project(self, z):
        t, v = z[:, :1], z[:, 1:]
        n = (v * v).sum(1, keepdim=True).sqrt()
        boundary = torch.cat([(t + n) / 2, (t + n) / 2 * v / n], 1)
        return torch.where(n <= t, z, torch.where(n <= -t, 0.0, boundary))


@mutant("derivative-finite", 2)
class RawEigh(PSD):
    """Autograd through eigenvectors, which have no derivative where eigenvalues repeat."""

    def project(self, z):
        values, vectors = torch.linalg.eigh(self.matrix(z.nan_to_num(0.0, 0.0, 0.0)))
        return self.vector((vectors * values.relu()[:, None, :]) @ vectors.mT)


@mutant("vjp-jvp", 3)
class ModesDiffer(Ruled):
    def transposed(self, z, d):
        return 2**0.5 * self.rule(z, d)


@mutant("vjp-jvp", 3)
class NoForwardMode(Ruled):
    class function(_Ruled):
        jvp = torch.autograd.Function.jvp


@mutant("derivative-symmetric", 3)
class Unsymmetric(Ruled):
    """With a small skew part, which both modes agree on."""

    def rule(self, z, d):
        return super().rule(z, d) + 0.01 * (d.roll(1, 1) - d.roll(-1, 1))

    def transposed(self, z, d):
        return super().rule(z, d) - 0.01 * (d.roll(1, 1) - d.roll(-1, 1))


@mutant("derivative-spectrum", 3)
class Doubled(Ruled):
    scale = 2.0


@mutant("euler", 3)
class TermMissing(Ruled):
    def boundary(self, u, ratio, dt, dv, along):
        return torch.cat([dt, (1 - ratio.abs()) * dv], 1) / 2


@mutant("derivative", 3)
class Zero(Ruled):
    scale = 0.0


@mutant("derivative", 3)
class Flipped(Ruled):
    scale = -1.0


@mutant("derivative", 3)
class SlightlyWrong(Ruled):
    scale = 0.999


@mutant("derivative", 2)
class Detached(Nonnegative):
    def project(self, z):
        return z.detach().relu()


@mutant("derivative", 3)
class HalfWay(Ruled):
    """Symmetric, a contraction, and right along z: only differences tell."""

    def boundary(self, u, ratio, dt, dv, along):
        turned = torch.stack([-u[:, 1], u[:, 0]], 1)  # across v
        less = 0.1 * (1 + ratio) * turned * (turned * dv).sum(1, keepdim=True)
        return super().boundary(u, ratio, dt, dv - less, along)


@mutant("second-derivative", 3)
class OnceDifferentiable(Ruled):
    class function(_Ruled):
        @staticmethod
        @once_differentiable
        def backward(ctx, g):
            return ctx.cone.transposed(*ctx.saved_tensors, g), None


@mutant("second-derivative", 3)
class Frozen(Ruled):
    """A derivative that autograd cannot see through."""

    def rule(self, z, d):
        return super().rule(z.detach(), d)
