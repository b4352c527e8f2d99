"""Files: written whole or not at all, so that a half-written one never replaces a good one; digests of contents."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved over it when the block ends well and removed when it does not.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def check_folder(folder: Path) -> None:
    """Try whether files can be written to a folder, before hours of work end in an error. Nothing is left behind.

    Raises:
        OSError: they cannot (of a folder that does not exist yet: it cannot be made); the message names it.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OSError(f"out: {folder} cannot be written ({error.strerror or error})") from None


def check_file(path: Path) -> None:
    """As `check_folder`, for one file.

    Raises:
        OSError: it cannot be written; the message names it.
    """
    if path.is_dir():
        raise OSError(f"out: expected a file, {path} is a folder")
    check_folder(path.parent)


def digest(text: str, weights: Mapping[str, Tensor]) -> str:
    """Hex SHA-256 of a text and of named tensors (on the CPU), their shapes and dtypes included."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(weights):
        t = weights[name]
        digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        digest.update(t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b"")
    return digest.hexdigest()
