"""Accelerators as text and as plain data: "gru+anderson-2", and the JSON that a checkpoint keeps.

`compose` reads an expression of registered names joined by "+": a schedule of them, first this, then that, under the
safeguard. `describe` and `build` turn an accelerator into JSON types and back; only registered accelerators with plain
arguments can be described, so that reading a description runs no foreign code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fixedpoint.learning.learned import options as arguments
from fixedpoint.plugins.registry import RegistryError, accelerators
from fixedpoint.protocol import Accelerator
from fixedpoint.signature import Signature

_PLAIN = (bool, int, float, str, type(None))
_DEPTH = 8


def names(expression: str) -> list[str]:
    """The parts of "a+b".

    Raises:
        ValueError: an empty part.
    """
    found = [name.strip() for name in expression.split("+")]
    if not all(found):
        raise ValueError(f"accelerator: expected registered names joined by '+', got {expression!r}")
    return found


def compose(expression: str, settings: Mapping[str, Mapping[str, Any]] | None = None) -> Accelerator:
    """The safeguarded accelerator that an expression names, unbound.

    Args:
        expression: registered names joined by "+"; each has its turn, as long as its `steps` say, the last one for
            the rest: "gru", "warm-start+anderson-2".
        settings: arguments of each part by its name; of "safeguarded" too.

    Raises:
        RegistryError: an unknown name; ValueError: an empty part, settings for a name that is not there, a part
            that cannot be followed by another; TypeError: arguments that do not fit.
    """
    wanted = names(expression)
    given = {name: dict(values) for name, values in (settings or {}).items()}
    if unknown := given.keys() - {*wanted, "safeguarded"}:
        raise ValueError(f"options: {expression!r} has no part named {sorted(unknown)}")
    parts = [accelerators.create(name, **given.get(name, {})) for name in wanted]
    inner = parts[0] if len(parts) == 1 else accelerators.create("schedule", parts=parts)
    return accelerators.create("safeguarded", inner=inner, **given.get("safeguarded", {}))


def describe(accelerator: Accelerator) -> dict[str, Any]:
    """{"accelerator": registered name, "options": its arguments}, nested for accelerators that hold others.

    The signature is left out: a checkpoint keeps it once.

    Raises:
        RegistryError: an accelerator that is not registered.
        TypeError: an argument that is neither plain data nor an accelerator.
    """
    kept = {name: _encoded(value, name) for name, value in arguments(accelerator).items() if name != "signature"}
    return {"accelerator": accelerators.name_of(type(accelerator)), "options": kept}


def parts(held: object) -> Iterator[Accelerator]:
    """The accelerators in an argument: itself, those in a list, and in turn what these have as arguments."""
    if isinstance(held, Accelerator):
        yield held
        held = list(arguments(held).values())
    for entry in held if isinstance(held, list | tuple) else []:
        yield from parts(entry)


def build(description: Any, signature: Signature | None, depth: int = 0) -> Accelerator:
    """The accelerator that `describe` described, built for the signature where that is needed.

    Raises:
        ValueError: not a description; RegistryError: an accelerator that is not registered (here).
    """
    if not _is_description(description) or depth > _DEPTH:
        raise ValueError("not the description of an accelerator")
    kept = {name: _decoded(value, signature, depth + 1) for name, value in description["options"].items()}
    try:
        made = accelerators.create(description["accelerator"], **kept)
        if not isinstance(made, Accelerator):
            raise TypeError(f"expected an Accelerator, got {made!r}")
        return made if signature is None else made.bind(signature)
    except RegistryError:
        raise
    except (TypeError, ValueError) as error:
        raise ValueError(f"{description['accelerator']}: {error}") from None


def _encoded(value: object, name: str) -> Any:
    if isinstance(value, Accelerator):
        return describe(value)
    if isinstance(value, list | tuple):
        return [_encoded(entry, name) for entry in value]
    if isinstance(value, _PLAIN):
        return value
    raise TypeError(f"{name}: expected plain data or an accelerator, got {value!r}")


def _decoded(value: Any, signature: Signature | None, depth: int) -> Any:
    if isinstance(value, list):
        return [_decoded(entry, signature, depth) for entry in value]
    return build(value, signature, depth) if isinstance(value, dict) else value


def _is_description(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"accelerator", "options"}
        and isinstance(value["accelerator"], str)
        and isinstance(value["options"], dict)
    )
