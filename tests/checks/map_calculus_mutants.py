"""Maps with wrong derivatives, gradients or traits. Each under the check that must catch it."""

import torch

from maps.affine import Affine, AffineProblem

from .map_mutants import SIZE, declaring, mutant


class _Linear(torch.autograd.Function):
    """x -> A x with a derivative that is `factor` times the right one, in both modes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(A, x, backward, forward):
        return (A @ x[:, :, None])[:, :, 0]

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.A, _, ctx.back, ctx.ahead = inputs
        ctx.save_for_forward(ctx.A)

    @staticmethod
    def backward(ctx, g):
        return None, ctx.back * (ctx.A.mT @ g[:, :, None])[:, :, 0], None, None

    @staticmethod
    def jvp(ctx, dA, dx, *_):
        return ctx.ahead * (ctx.A @ dx[:, :, None])[:, :, 0]


class Derivative(Affine):
    factors = (1.0, 1.0)

    def forward(self, x, context):
        return _Linear.apply(context.rows.A, x, *self.factors) + context.rows.b


@mutant("vjp-jvp")
class ZeroDerivative(Derivative):
    factors = (0.0, 0.0)


@mutant("vjp-jvp")
class FlippedSign(Derivative):
    factors = (-1.0, -1.0)


@mutant("vjp-jvp")
class WrongFactor(Derivative):
    factors = (2**0.5, 2**0.5)


@mutant("vjp-jvp")
class OneModeWrong(Derivative):
    factors = (1.0, 2**0.5)


@mutant("vjp-jvp")
class Detached(Affine):
    def forward(self, x, context):
        return super().forward(x.detach(), context)


@mutant("vjp-jvp")
class SmallDetachedPart(Affine):
    """A wrong derivative of one part in a thousand."""

    def forward(self, x, context):
        return super().forward(0.999 * x + 0.001 * x.detach(), context)


@mutant("gradient")
class ZeroGradient(Affine):
    def implicit_vjp(self, x_star, context, cotangent):
        return AffineProblem(*(torch.zeros_like(t) for t in context.problem))


@mutant("gradient")
class FlippedGradient(Affine):
    def implicit_vjp(self, x_star, context, cotangent):
        return AffineProblem(*(-g for g in super().implicit_vjp(x_star, context, cotangent)))


@mutant("gradient")
class OneLeafForgotten(Affine):
    def setup(self, problem):
        return super().setup(problem._replace(A=problem.A.detach()))._replace(problem=problem)


@mutant("traits")
class SlightlyExpansive(Affine):
    """Singular values up to 1.05, in one direction of five."""

    def forward(self, x, context):
        return 1.5 * (super().forward(x, context) - context.rows.b) + context.rows.b


@mutant("traits")
class RotationAsContraction(Affine):
    def forward(self, x, context):
        return x.roll(1, 1) + context.rows.b


@mutant("traits")
class ReflectionAsAveraged(Affine):
    def __init__(self, size):
        super().__init__(size)
        self.signature = declaring(self, traits={"averaged", "nonexpansive"}, averagedness=0.8)

    def forward(self, x, context):
        return context.rows.b - 0.9 * x


@mutant("traits")
class AffineAsHomogeneous(Affine):
    def __init__(self, size):
        super().__init__(size)
        self.signature = declaring(self, traits={"homogeneous"})


@mutant("traits")
class WrongMetric(Affine):
    def metric(self, context):
        return (torch.arange(1.0, SIZE + 1, dtype=context.rows.b.dtype) ** 4).expand_as(context.rows.b)
