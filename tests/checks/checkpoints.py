"""Checkpoint files that are whole, but not what they should be: their digest is right whatever they say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from safetensors.torch import save as to_bytes
from torch import Tensor

import fixedpoint as fp
from fixedpoint import files
from fixedpoint.plugins import checkpoint
from tests.checks.learned import SIGNATURE


def sealed(spec: Any, weights: dict[str, Tensor] | None = None) -> bytes:
    """A file with a valid digest, whatever it says."""
    text = spec if isinstance(spec, str) else json.dumps(spec)
    header = {checkpoint._KEY: text, "digest": files.digest(text, weights or {})}
    return to_bytes(weights or {}, metadata=header)


def spec(accelerator: Any = "gru", options: Any = None, **changes: Any) -> dict[str, Any]:
    signature = {**SIGNATURE.to_json(), "hash": SIGNATURE.hash}
    description = {"format": checkpoint.FORMAT, "accelerator": accelerator, "options": options or {}}
    return {**description, "signature": signature, "provenance": None, **changes}


def hostile() -> Iterator[tuple[str, Any]]:
    """(what is wrong, a description)."""
    nested: dict[str, Any] = {"accelerator": "picard", "options": {}}
    for _ in range(40):
        nested = {"accelerator": "safeguarded", "options": {"inner": nested}}
    yield "deep", spec(**nested)
    yield "lists", json.dumps(spec("schedule", {"parts": 0})).replace("0}", "[" * 50_000 + "]" * 50_000 + "}")
    huge = (10**9, 10**13, 10**40, -1, 1.5, "x", None, [1], {}, {"accelerator": "picard"})
    kinds = {"gru": "hidden", "coordinate-gru": "hidden", "warm-start": "width", "nearest-start": "instances"}
    for name, option in {**kinds, "mixing": "width", "lstm": "steps"}.items():
        for value in huge:
            yield f"{name}-{option}", spec(name, {option: value})
    slow = {"accelerator": "gru", "options": {"steps": 10**13}}
    yield "safeguarded-steps", spec("safeguarded", {"inner": slow})
    for option, value in (("seed", "x"), ("base", 3), ("signature", "x"), ("self", 1), ("unheard", 1)):
        yield f"gru-{option}", spec("gru", {option: value})
    large = fp.Signature(10**12, features=10**12)
    yield "signature-large", spec(signature={**large.to_json(), "hash": large.hash})
    for entry in ({"size": "5"}, {"traits": 3}, {"coordinates": [1]}, {"hash": None}, {"more": 1}):
        yield f"signature-{entry}", spec("picard", signature={**spec()["signature"], **entry})
    for key, value in (("signature", 3), ("accelerator", 3), ("options", [1]), ("provenance", [1])):
        yield f"{key}-of-another-type", spec("anderson-2", signature=None) | {key: value}
    for key in spec():
        yield f"without-{key}", {name: value for name, value in spec("picard").items() if name != key}
    yield from (("not-an-object", text) for text in ("[]", "3", "null", '"x"', "{", ""))
