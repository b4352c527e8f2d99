"""What is known of a map before it sees a problem: who fits it, and which states and weights belong to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

TRAITS = frozenset({"contractive", "averaged", "nonexpansive", "homogeneous"})


@dataclass(frozen=True)
class Signature:
    """What an accelerator may know of a map before it sees a problem; JSON-able.

    Raises:
        ValueError: a size below 1, an unknown trait, or an averagedness outside (0, 1].
    """

    size: int
    """n, the length of x."""
    features: int = 0
    """k, the width of `featurize`; 0 when it is not known before a problem is seen."""
    traits: frozenset[str] = frozenset()
    """Promises that `check_map` tests on samples, in the map's own metric: "contractive", "averaged",
    "nonexpansive", "homogeneous" (of degree 1)."""
    averagedness: float | None = None
    """The a for which f = (1 - a) I + a N with N nonexpansive; None when not declared. An outer relaxation b
    keeps the iteration convergent while a b <= 1 (Krasnosel'skii-Mann)."""
    coordinates: Mapping[str, Any] = field(default_factory=dict)
    """Everything that changes the meaning of the coordinates of x (sizes, scalings, forms), JSON-able."""
    sizes: frozenset[str] = frozenset()
    """The names of those coordinates that only say how large things are: a size-free accelerator looks past them, but
    for the names within (the kinds of cones, say)."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size: expected at least 1, got {self.size}")
        object.__setattr__(self, "traits", frozenset(self.traits))
        object.__setattr__(self, "sizes", frozenset(self.sizes))
        if unknown := self.sizes - set(self.coordinates):
            raise ValueError(f"sizes: unknown {sorted(unknown)}; coordinates are {sorted(self.coordinates)}")
        if unknown := self.traits - TRAITS:
            raise ValueError(f"traits: unknown {sorted(unknown)}; known are {sorted(TRAITS)}")
        if self.averagedness is not None and not 0 < self.averagedness <= 1:
            raise ValueError(f"averagedness: expected a number in (0, 1], got {self.averagedness}")

    def to_json(self) -> dict[str, Any]:
        """The signature as plain JSON types."""
        sets = {"traits": sorted(self.traits), "sizes": sorted(self.sizes)}
        return {**asdict(self), **sets, "coordinates": dict(self.coordinates)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Signature:
        """The inverse of `to_json`.

        Raises:
            TypeError, ValueError: content that describes no signature.
        """
        return cls(**{**content, "traits": frozenset(content["traits"])})

    def differences(self, other: Signature, *, sizes: bool = True) -> list[str]:
        """What keeps states of the two apart, one phrase each: "scale: 0.1, not 75.9". Empty when hashes are equal.

        Args:
            other: the signature to compare with.
            sizes: False looks past the size and past `self.sizes`, of which only the names within still count.
        """
        one, two = ({"size": s.size, **json.loads(json.dumps(dict(s.coordinates)))} for s in (self, other))
        for name in () if sizes else ("size", *sorted(self.sizes)):
            one[name], two[name] = (sorted(c[name]) if isinstance(c.get(name), dict) else None for c in (one, two))
        names = [name for name in {**one, **two} if one.get(name) != two.get(name)]
        return [f"{name}: {one.get(name)!r}, not {two.get(name)!r}" for name in names]

    @property
    def hash(self) -> str:
        """Hex digest of what fixes the coordinates of x: equal hashes mean interchangeable states."""
        text = json.dumps({"size": self.size, "coordinates": dict(self.coordinates)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
