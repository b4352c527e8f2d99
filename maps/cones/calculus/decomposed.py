"""Cones whose projection comes with a hand-written derivative, for which autograd through a decomposition is no use."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fixedpoint.tensors.masks import is_constant
from maps.cones.cone import Cone

Parts: TypeAlias = tuple[Tensor, ...]
"""Batch-first tensors."""


class DecomposedCone(Cone):
    """A cone whose projection is made of a decomposition of each row, such as its eigenvalues.

    A subclass writes three functions of batches of independent rows, in plain torch; autograd never sees their inside.
    The derivative of a projection is self-adjoint, so `derivative` serves gradients and Jacobian-vector products alike;
    torch.func, vmap and torch.compile work. A row with NaN or infinity is replaced by 0 before it is decomposed, and
    its projection is NaN.

    Second derivatives are refused: a RuntimeError, never a silent zero.
    """

    @abstractmethod
    def decompose(self, z: Tensor) -> Parts:
        """(B, k), finite -> whatever `point` and `derivative` need, batch first."""

    @abstractmethod
    def point(self, parts: Parts) -> Tensor:
        """Parts -> (B, k): the nearest point of K."""

    @abstractmethod
    def derivative(self, parts: Parts, v: Tensor) -> Tensor:
        """Parts, (B, k) directions v -> (B, k): the projection's derivative times v; linear in v and self-adjoint."""

    def project(self, z: Tensor) -> Tensor:
        """The nearest point of the cone."""
        if self.dim == 0:
            return z
        return self.nearest(z) if is_constant(z) else _apply(self, z)[0]

    def nearest(self, z: Tensor) -> Tensor:
        """`project` where nobody asks for a derivative, for cones that have a faster way then."""
        return _apply(self, z)[0]


def _apply(cone: DecomposedCone, z: Tensor) -> Parts:
    """The point, then the parts."""
    function = _CompiledProjection if torch.compiler.is_compiling() else _Projection
    return function.apply(cone, z)


class _CompiledProjection(torch.autograd.Function):
    """(cone, z) -> (point, *parts); without `jvp`, which Dynamo refuses where a gradient is wanted."""

    @staticmethod
    def forward(cone: DecomposedCone, z: Tensor) -> Parts:
        finite = torch.isfinite(z).all(1, keepdim=True)
        parts = cone.decompose(torch.where(finite, z, 0.0))
        return torch.where(finite, cone.point(parts), torch.nan), *parts

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Parts) -> None:
        _remember(ctx, inputs[0], inputs[1], *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None, *_: Any) -> Any:
        if cotangent is None:
            return None, None
        z, *parts = ctx.saved_tensors
        if torch.compiler.is_compiling():  # by itself it refuses second derivatives, and cannot nest this Function
            return None, ctx.cone.derivative(tuple(parts), cotangent)
        return None, _Derivative.apply(ctx.cone, cotangent, z, *parts)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], cone: DecomposedCone, z: Tensor) -> Any:
        outputs = _apply(cone, *_fold(info.batch_size, in_dims[1:], z))
        return tuple(t.unflatten(0, (info.batch_size, -1)) for t in outputs), tuple(0 for _ in outputs)


class _Projection(_CompiledProjection):
    """The same with forward mode."""

    @staticmethod
    def jvp(ctx: Any, _: None, tangent: Tensor | None) -> Any:
        z, *parts = ctx.saved_tensors
        moved = None if tangent is None else _Derivative.apply(ctx.cone, tangent, z, *parts)
        return moved, *(None for _ in parts)


class _Derivative(torch.autograd.Function):
    """(cone, v, z, *parts) -> the derivative at z times v: its own derivative in v, and none in z."""

    @staticmethod
    def forward(cone: DecomposedCone, v: Tensor, z: Tensor, *parts: Tensor) -> Tensor:
        return cone.derivative(parts, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        cone, _, *rest = inputs
        _remember(ctx, cone, *rest)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> Any:
        if ctx.needs_input_grad[2]:
            _refuse(ctx.cone)
        z, *parts = ctx.saved_tensors
        of_v = None if cotangent is None else _Derivative.apply(ctx.cone, cotangent, z, *parts)
        return None, of_v, None, *(None for _ in parts)

    @staticmethod
    def jvp(ctx: Any, _: None, of_v: Tensor | None, of_z: Tensor | None, *of_parts: Any) -> Tensor | None:
        if of_z is not None:
            _refuse(ctx.cone)
        return None if of_v is None else _Derivative.apply(ctx.cone, of_v, *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], cone: DecomposedCone, *tensors: Tensor) -> Any:
        result = _Derivative.apply(cone, *_fold(info.batch_size, in_dims[1:], *tensors))
        return result.unflatten(0, (info.batch_size, -1)), 0


def _remember(ctx: Any, cone: DecomposedCone, *tensors: Tensor) -> None:
    ctx.cone = cone
    ctx.set_materialize_grads(False)  # a missing tangent of z must not look like one of zeros
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _refuse(cone: DecomposedCone) -> None:
    raise RuntimeError(f"second derivatives of the projection onto {cone!r} are not available")


def _fold(size: int, dims: tuple[int | None, ...], *tensors: Tensor) -> list[Tensor]:
    """The mapped axis joins the batch: rows are independent."""
    return [
        (t.expand(size, *t.shape) if d is None else t.movedim(d, 0)).flatten(0, 1)
        for t, d in zip(tensors, dims, strict=True)
    ]


def clipped_differences(values: Tensor) -> Tensor:
    """(B, r) -> (B, r, r): (max(a, 0) - max(b, 0)) / (a - b) for all pairs, its limit where a = b, 0 where both are 0.

    Computed without cancellation, as (max(a, 0) + max(b, 0)) / (|a| + |b|).
    """
    positive, size = values.relu(), values.abs()
    above = positive[:, :, None] + positive[:, None, :]
    sizes = size[:, :, None] + size[:, None, :]
    return torch.where(sizes > 0, above / torch.where(sizes > 0, sizes, 1.0), 0.0)
