"""The base of learned accelerators: modules built for one signature, fitted and trained on examples.

A learned accelerator is an ordinary `Accelerator` that is also a `torch.nn.Module`. Conventions that training and
checkpoints rely on: constructor arguments are kept as attributes of the same name (as scikit-learn has it); what is
fitted or trained is a parameter or a persistent buffer; networks have a dtype of their own (float32), points the map's.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from typing import ClassVar, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from fixedpoint.protocol import Accelerator
from fixedpoint.signature import Signature

Kind = TypeVar("Kind", bound=Accelerator)


class Examples(NamedTuple):
    """Plain iterations on N training instances: what `Learned.fit` may look at."""

    x: Tensor
    """(T, N, n) points; x[0] is the cold start."""
    residual: Tensor
    """(T, N, n) f(x) - x."""
    features: Tensor | None
    """(N, k) what `init` will see; None when k is 0."""
    solutions: Tensor | None
    """(N, n) fixed points; given to accelerators that say `needs_solutions`."""


@runtime_checkable
class Calibrated(Protocol):
    """A module that wants to know what is usual for the accelerator that it holds, once this is trained."""

    def calibrate(self, sizes: Tensor) -> None:
        """Residual norms (T, N) in the map's metric, evaluation by evaluation, on N validation instances."""


class Learned(nn.Module, Accelerator):
    """A module built for the maps of one signature; without a signature it is a plan that `bind` carries out.

    A subclass keeps its arguments as attributes, writes `build` and ends its constructor with `self.construct()`.

    Args:
        signature: of the maps to serve; None to be told by `bind`.
        seed: of the initial weights.
    """

    steps: int
    """Evaluations whose step is learned; 0 for a learned start alone."""
    size_free: bool = False
    """Whether it serves maps of every size: nothing of it has the size of the map that it was built for. The other
    coordinates (forms, scalings) must still be those: see `Signature.sizes`, which a map has to declare."""
    needs_solutions: ClassVar[bool] = False
    """Whether `fit` needs `Examples.solutions`."""

    def __init__(self, signature: Signature | None = None, seed: int = 0) -> None:
        super().__init__()
        self.signature, self.seed = signature, seed

    @property
    def learned_steps(self) -> int:  # type: ignore[override]
        """As long as its steps are learned."""
        return self.steps

    @abstractmethod
    def restart(self, x0: Tensor, metric: Tensor | None = None) -> object:
        """See `Accelerator.restart`: beyond the learned steps."""

    @abstractmethod
    def build(self, signature: Signature) -> None:
        """Make parameters and buffers; called once, under the accelerator's own seed."""

    def fit(self, examples: Examples) -> None:
        """Set buffers (input normalisation, closed-form weights) from examples. Default: nothing to set."""

    def construct(self) -> None:
        """Build what the signature asks for, if there is one. The global random state is left alone."""
        if self.signature is not None:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(self.seed)
                self.build(self.signature)
        self.eval()

    def check(self, signature: Signature) -> None:
        """Refuse maps of another signature, saying what differs.

        Raises:
            ValueError: another form or scaling or, unless it is `size_free`, another size.
        """
        if self.signature is None or self.signature.hash == signature.hash:
            return
        if differences := signature.differences(self.signature, sizes=not self.size_free):
            raise ValueError(f"{type(self).__name__} was built for another map ({'; '.join(differences)})")

    def bind(self, signature: Signature) -> Self:
        """Itself, or one built (untrained) for the signature when it was made without.

        Raises:
            ValueError: it was built for another signature.
        """
        self.check(signature)
        return rebuilt(self, signature=signature) if self.signature is None else self


def options(accelerator: Accelerator) -> dict[str, object]:
    """The constructor arguments of an accelerator that keeps them as attributes of the same name.

    Raises:
        TypeError: it does not.
    """
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    names = [n for n, p in inspect.signature(type(accelerator)).parameters.items() if p.kind not in kinds]
    missing = [name for name in names if not hasattr(accelerator, name)]
    if missing:
        raise TypeError(
            f"{type(accelerator).__name__} does not keep its argument(s) {', '.join(missing)} as attributes, "
            "so it cannot be saved or built anew"
        )
    return {name: getattr(accelerator, name) for name in names}


def rebuilt(accelerator: Kind, **changes: object) -> Kind:
    """A new accelerator of the same kind with the same arguments but for the `changes`."""
    return type(accelerator)(**{**options(accelerator), **changes})


def require_counts(**values: object) -> None:
    """Raise ValueError, naming the argument, for what is no whole number >= 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: expected a whole number >= 1, got {value!r}")


def require_flags(**values: object) -> None:
    """Raise ValueError, naming the argument, for what is neither True nor False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name}: expected true or false, got {value!r}")
