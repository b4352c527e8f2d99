"""What a cone is to the rest of the project."""

from __future__ import annotations

import functools
import inspect
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor


def whole(name: str, value: Any) -> int:
    """A constructor argument that must be a whole number >= 0.

    Raises:
        ValueError: it is not; the message names the argument.
    """
    try:
        if not isinstance(value, bool) and int(value) == value and value >= 0:
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{name}: expected a whole number >= 0, got {value!r}")


def positive(name: str, value: Any) -> float:
    """A constructor argument that must be a positive number whose square, added to 1, neither is lost nor hides the 1.

    Raises:
        ValueError: it is not; the message names the argument.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and 1e-6 <= float(value) <= 1e6:
        return float(value)
    raise ValueError(f"{name}: expected a number from 1e-6 to 1e6, got {value!r}")


def _checked(project: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A projection that refuses points of the wrong shape."""

    @functools.wraps(project)
    def checked(self: Cone, z: Tensor, *args: Any, **options: Any) -> Tensor:
        if z.ndim != 2 or z.shape[1] != self.dim:
            hint = f" ({self.hint})" if self.hint else ""
            raise ValueError(f"z: {self!r} expects points of shape (B, {self.dim}){hint}, got {tuple(z.shape)}")
        return project(self, z, *args, **options)

    return checked


class Cone(ABC):
    """A closed convex cone K of vectors of length `dim`.

    A subclass writes `project`; whatever class it is, z is checked before that, and before `project_dual`, to be of
    shape (B, dim).

    Args:
        dim: k >= 0, the length of the vectors.

    Raises:
        ValueError: a negative or fractional length.
    """

    separable: ClassVar[bool] = False
    """Whether scaling each coordinate by a positive number of its own maps K onto a cone of the same kind."""

    hint: str = ""
    """What is easily got wrong about `dim`, for messages."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("project", "project_dual"):
            if name in cls.__dict__:
                setattr(cls, name, _checked(cls.__dict__[name]))

    def __init__(self, dim: int) -> None:
        self.dim = whole("dim", dim)

    def __repr__(self) -> str:
        """The call that makes it; constructor arguments are kept as attributes of the same name."""
        arguments = (f"{name}={getattr(self, name, ...)!r}" for name in inspect.signature(type(self)).parameters)
        return f"{type(self).__name__}({', '.join(arguments)})"

    @classmethod
    def examples(cls) -> list[Cone]:
        """Small cones of this kind, for `check_cone` and `fixedpoint check cone`; override where `dim` is not all."""
        return [cls(dim) for dim in (1, 2, 3, 5)]

    @abstractmethod
    def project(self, z: Tensor) -> Tensor:
        """(B, k) -> (B, k): the nearest point of K, in the Euclidean norm; differentiable, rows independent."""

    def project_dual(self, z: Tensor) -> Tensor:
        """(B, k) -> (B, k): the nearest point of the dual cone K*, by Moreau: z + P_K(-z)."""
        return z + self.project(-z)


class Dual(Cone):
    """The dual cone of another cone."""

    def __init__(self, primal: Cone) -> None:
        super().__init__(primal.dim)
        self.primal, self.separable = primal, primal.separable  # type: ignore[misc]

    @classmethod
    def examples(cls) -> list[Cone]:
        """None: what is tested of a cone covers its dual."""
        return []

    def project(self, z: Tensor) -> Tensor:
        """The primal's projection onto its dual."""
        return self.primal.project_dual(z)

    def project_dual(self, z: Tensor) -> Tensor:
        """The primal's projection: the dual of the dual of a closed convex cone is the cone itself."""
        return self.primal.project(z)
