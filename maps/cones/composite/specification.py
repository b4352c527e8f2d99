"""What a product of cones is made of: SCS's description, checked, and the blocks it names."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from fixedpoint.plugins import registry
from maps.cones.box import Box, check_bounds
from maps.cones.cone import Cone, Dual, whole
from maps.cones.exponential import Exponential
from maps.cones.nonnegative import Nonnegative
from maps.cones.power import Powers, checked_exponent
from maps.cones.psd import PSD
from maps.cones.second_order import SecondOrder
from maps.cones.zero import Zero

ConeSpec: TypeAlias = Mapping[str, Any]
"""SCS's description of a product, {"z": rows, "l": rows, "q": [lengths], "s": [orders], ...}; see `ProductCone`."""


class Blocks(NamedTuple):
    """Equal blocks one after the other."""

    cone: Cone
    number: int
    kind: Hashable
    """Equal for blocks of equal cones."""


def checked_spec(spec: ConeSpec) -> dict[str, Any]:
    """The keys that are not empty, in row order, with JSON-able values.

    Raises:
        ValueError: an unknown key, or a value that does not fit. Messages begin with "cones".
    """
    if not isinstance(spec, Mapping):
        raise ValueError(f'cones: expected a mapping such as {{"z": 3, "l": 2, "q": [3]}}, got {spec!r}')
    others = sorted(str(key) for key in spec if key not in _CHECKS)
    registered = registry.cones.names() if others else []
    if unknown := [key for key in others if key not in registered]:
        known = [*_CHECKS, *registered]
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"cones: unknown key {unknown[0]!r}, known are {', '.join(known)}{hint}")
    checked = {key: check(f"cones[{key!r}]", spec[key]) for key, check in _CHECKS.items() if key in spec}
    checked |= {name: _arguments(f"cones[{name!r}]", spec[name]) for name in others}
    check_bounds("cones['bl']", checked.get("bl", []), "cones['bu']", checked.get("bu", []))
    return {key: value for key, value in checked.items() if value}


def blocks(spec: dict[str, Any]) -> list[Blocks]:
    """The blocks of a checked description in row order, empty ones left out.

    Raises:
        ValueError: a registered cone that cannot be made of its arguments.
    """
    found = [Blocks(cone(spec[key]), 1, key) for key, cone in _WHOLE.items() if key in spec]
    if "bu" in spec:
        found.append(Blocks(Box(spec["bl"], spec["bu"]), 1, "b"))
    for key, sized in _SIZED.items():
        cones = {size: sized(size) for size in set(spec.get(key, []))}
        found += [Blocks(cones[size], 1, (key, size)) for size in spec.get(key, [])]
    found += [Blocks(cone(), spec[key], key) for key, cone in _COUNTED.items() if key in spec]
    if "p" in spec:
        found.append(Blocks(Powers(spec["p"]), len(spec["p"]), "p"))
    for name in [key for key in spec if key not in _CHECKS]:
        found += [
            Blocks(_registered(name, place, arguments), 1, (name, repr(arguments)))
            for place, arguments in enumerate(spec[name])
        ]
    return [block for block in found if block.cone.dim > 0]


def _registered(name: str, place: int, arguments: list[Any]) -> Cone:
    try:
        cone = registry.cones.load(name)(*arguments)
    except (TypeError, ValueError, registry.RegistryError) as error:
        raise ValueError(f"cones[{name!r}][{place}]: {error}") from error
    if not isinstance(cone, Cone):
        raise ValueError(f"cones[{name!r}][{place}]: expected a cone, got {cone!r}")
    return cone


def _list(name: str, value: Any, expected: str) -> list[Any]:
    """Numbers as a list; one number is a list of one."""
    values = value.tolist() if hasattr(value, "tolist") else value
    listed = list(values) if isinstance(values, Iterable) and not isinstance(values, str | Mapping) else [values]
    if not all(isinstance(v, numbers.Real) and not isinstance(v, bool) for v in listed):
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return listed


def _wholes(name: str, value: Any, unit: str) -> list[int]:
    """Whole numbers as a list."""
    expected = f"a list of {unit}, whole numbers >= 0"
    listed = _list(name, value, expected)
    if not all(v >= 0 and float(v).is_integer() for v in listed):
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return [int(v) for v in listed]


def _floats(name: str, value: Any) -> list[float]:
    return [float(v) for v in _list(name, value, "a list of numbers")]


def _exponents(name: str, value: Any) -> list[float]:
    return [checked_exponent(name, v) for v in _floats(name, value)]


def _arguments(name: str, value: Any) -> list[list[Any]]:
    """The argument lists of registered cones."""
    if not isinstance(value, list | tuple) or not all(isinstance(arguments, list | tuple) for arguments in value):
        raise ValueError(f"{name}: expected a list with the arguments of each cone, such as [[2, 3]], got {value!r}")
    return [[_plain(argument) for argument in arguments] for arguments in value]


def _plain(value: Any) -> Any:
    """Arrays and tensors as Python's numbers and lists, which compare and print in full."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "z": whole,
    "l": whole,
    "bu": _floats,
    "bl": _floats,
    "q": lambda name, value: _wholes(name, value, "lengths"),
    "s": lambda name, value: _wholes(name, value, "orders k (each takes k (k + 1) / 2 rows)"),
    "ep": whole,
    "ed": whole,
    "p": _exponents,
}
"""SCS's keys, in row order."""

_WHOLE: dict[str, Callable[[int], Cone]] = {"z": Zero, "l": Nonnegative}
_SIZED: dict[str, Callable[[int], Cone]] = {"q": SecondOrder, "s": PSD}
_COUNTED: dict[str, Callable[[], Cone]] = {"ep": Exponential, "ed": lambda: Dual(Exponential())}
