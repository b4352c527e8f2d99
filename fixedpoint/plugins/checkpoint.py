"""Accelerators on disk: one safetensors file with the weights and, in its header, a JSON description.

Never pickle: reading a file runs no code but the constructors of registered accelerators, and allocates no more than
the file holds. A digest over description and weights tells a damaged file from a good one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from fixedpoint import files
from fixedpoint.learning.learned import Learned
from fixedpoint.plugins import composition
from fixedpoint.plugins.registry import RegistryError
from fixedpoint.protocol import Accelerator
from fixedpoint.signature import Signature

FORMAT = 1
SUFFIX = ".safetensors"
_KEY = "fixedpoint"


def save(accelerator: Accelerator, path: str | Path) -> Path:
    """Write an accelerator, whole or not at all: arguments, weights, signature and provenance.

    Args:
        accelerator: of registered classes throughout; a learned one must be built (see `Learned.bind`).
        path: the file, usually NAME.safetensors; folders are made.

    Raises:
        ValueError: a learned accelerator without a signature, weights that are not finite or cannot be reached.
        RegistryError: an accelerator that is not registered; TypeError: arguments that are not plain data.
        OSError: the file cannot be written.
    """
    path = Path(path)
    description = composition.describe(accelerator)
    _check_parts(accelerator)
    weights = {name: t.detach().cpu().clone().contiguous() for name, t in _weights(accelerator).items()}
    if bad := [name for name, t in weights.items() if not bool(torch.isfinite(t).all())]:
        raise ValueError(f"accelerator: {bad[0]} is not finite; such weights are not worth keeping")
    signature = accelerator.signature
    spec = {
        "format": FORMAT,
        **description,
        "signature": None if signature is None else {**signature.to_json(), "hash": signature.hash},
        "provenance": None if accelerator.provenance is None else dict(accelerator.provenance),
    }
    text = json.dumps(spec, sort_keys=True, allow_nan=False)
    header = {_KEY: text, "digest": files.digest(text, weights)}
    with files.replacing(path) as temporary:
        temporary.write_bytes(to_bytes(weights, metadata=header))
    return path


def load(path: str | Path) -> Accelerator:
    """Read an accelerator; its steps are bit for bit those of the one that was saved.

    Raises:
        ValueError: no such file, not a checkpoint, damaged, or of another format; the message says which.
        RegistryError: it needs an accelerator that is not installed.
    """
    path = Path(path)
    spec, weights = _read(path)
    try:
        signature = _signature(spec["signature"])
        description = {key: spec[key] for key in ("accelerator", "options")}
        with torch.device("meta"):  # nothing is allocated before the file has shown that it holds as much
            accelerator = composition.build(description, signature)
        accelerator.provenance = spec["provenance"]
        if not isinstance(accelerator.provenance, dict | None):
            raise TypeError(f"provenance: expected an object, got {accelerator.provenance!r}")
    except RegistryError as error:
        raise RegistryError(f"checkpoint {path}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
        raise ValueError(f"checkpoint {path}: damaged description ({type(error).__name__}: {error})") from None
    _fill(accelerator, weights, path)
    return accelerator


def provenance(path: str | Path) -> Mapping[str, Any]:
    """What training wrote about itself into a checkpoint, without loading the accelerator; {} when nothing.

    Raises:
        ValueError: as `load`.
    """
    found = _read(Path(path))[0].get("provenance")
    return found if isinstance(found, dict) else {}


def digest(accelerator: Accelerator) -> str:
    """Hex digest of an accelerator's weights."""
    return files.digest("", {name: t.detach().cpu() for name, t in _weights(accelerator).items()})


def _weights(accelerator: Accelerator) -> dict[str, Tensor]:
    return dict(accelerator.state_dict()) if isinstance(accelerator, nn.Module) else {}


def _check_parts(accelerator: Accelerator) -> None:
    """Refuse learned parts that have no weights yet, or whose weights the accelerator does not own as a module."""
    owned = set(accelerator.modules()) if isinstance(accelerator, nn.Module) else set()
    for part in composition.parts(accelerator):
        if isinstance(part, Learned) and part.signature is None:
            raise ValueError(
                f"accelerator: {type(part).__name__} was made without a signature, so it has no weights yet; "
                "`bind` builds it"
            )
        if isinstance(part, Learned) and part not in owned:
            raise ValueError(
                f"accelerator: {type(accelerator).__name__} holds a {type(part).__name__} but not its weights; what "
                "holds learned accelerators must be a torch.nn.Module"
            )


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise ValueError(f"checkpoint {path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"checkpoint {path}: truncated or damaged ({error})") from None
    if _KEY not in header:
        raise ValueError(f"checkpoint {path}: a safetensors file, but not one of ours")
    if header.get("digest") != files.digest(header[_KEY], weights):
        raise ValueError(f"checkpoint {path}: damaged, its contents do not match their digest")
    try:
        spec = json.loads(header[_KEY])
        version = spec["format"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"checkpoint {path}: damaged description ({type(error).__name__}: {error})") from None
    if version != FORMAT:
        raise ValueError(f"checkpoint {path}: format {version!r}, this version reads {FORMAT}; train it again")
    return spec, weights


def _signature(content: Any) -> Signature | None:
    if content is None:
        return None
    claimed = content["hash"]
    signature = Signature.from_json({name: value for name, value in content.items() if name != "hash"})
    if signature.hash != claimed:
        raise ValueError(f"signature {signature.hash}, not {claimed} as recorded")
    return signature


def _fill(accelerator: Accelerator, weights: dict[str, Tensor], path: Path) -> None:
    expected = {name: (tuple(t.shape), t.dtype) for name, t in _weights(accelerator).items()}
    found = {name: (tuple(t.shape), t.dtype) for name, t in weights.items()}
    if wrong := [name for name in {**expected, **found} if expected.get(name) != found.get(name)]:
        name = wrong[0]
        raise ValueError(f"checkpoint {path}: {name} is {found.get(name)}, expected {expected.get(name)}")
    if isinstance(accelerator, nn.Module):
        accelerator.load_state_dict(weights, assign=True)
        accelerator.eval()
