"""Families in a user's own file, "FILE.py:NAME", and the error of everything that is found by name."""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from fixedpoint.protocol import ProblemFamily


class RegistryError(LookupError):
    """A plug-in that is unknown, registered twice, broken or shadowed. The message says what to do."""


def in_file(name: str) -> bool:
    """Whether a name means something in a user's file."""
    return name.endswith(".py") or name.rpartition(":")[0].endswith(".py")


def split(name: str) -> tuple[Path, str]:
    """(file, name in it), which may be missing."""
    file, _, attribute = (name, "", "") if name.endswith(".py") else name.rpartition(":")
    return Path(file), attribute


def label(name: str) -> str:
    """What "FILE.py:NAME" is called in the names of files and folders: "my_problem.family", "folder.my_problem.family".

    The parts are those of the path from the current folder or, for a file that is not below it, of the absolute path,
    root included. What would be mistaken for a border between parts is written %XX: no two files have one label.
    """
    file, attribute = split(name)
    path, here = file.resolve(), Path.cwd().resolve()
    path = path.with_suffix("") if path.suffix == ".py" else path
    parts = (path.relative_to(here) if path.is_relative_to(here) else path).parts
    return ".".join([*(re.sub(r"[%./\\:]", lambda found: f"%{ord(found[0]):02X}", part) for part in parts), attribute])


def traced(name: str, error: BaseException) -> int | None:
    """The line of the file of "FILE.py:NAME" that an error went through last; None: it did not."""
    file = str(split(name)[0].resolve())
    found, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            found = trace.tb_lineno
        trace = trace.tb_next
    if found is None and error.__cause__ is not None:
        return traced(name, error.__cause__)
    return found


def from_file(name: str) -> Any:
    """The family, class of families or function that "FILE.py:NAME" names.

    Raises:
        RegistryError: no such file or name, an error while the file runs, something else.
    """
    file, attribute = split(name)
    if not file.is_file():
        raise RegistryError(f"family {name}: no file {file}")
    try:
        module = _run(file.resolve())
    except Exception as error:
        raise RegistryError(f"family {name}: {file} does not run: {type(error).__name__}: {error}") from error
    there = [key for key, value in vars(module).items() if isinstance(value, ProblemFamily)]
    known = f"families in {file}: {', '.join(there) or 'none'}"
    if not attribute:
        raise RegistryError(f"family {name}: expected {name}:NAME; {known}")
    if not hasattr(module, attribute):
        close = difflib.get_close_matches(attribute, there, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise RegistryError(f"family {name}: nothing there is called {attribute!r}; {hint}{known}")
    found = getattr(module, attribute)
    if not (
        issubclass(found, ProblemFamily)
        if isinstance(found, type)
        else isinstance(found, ProblemFamily) or callable(found)
    ):
        raise RegistryError(f"family {name}: expected a family, a class or a function that makes one, got {found!r}")
    return found


_ran: dict[Path, tuple[int, ModuleType]] = {}
"""Users' files that were run: when the file was changed last, and the module."""


def _run(path: Path) -> ModuleType:
    """A user's file as a module; it runs once, until it is changed. Modules beside it hide no installed ones."""
    changed = path.stat().st_mtime_ns
    if path in _ran and _ran[path][0] == changed:
        return _ran[path][1]
    name = f"{path.stem}@{path.parent}"  # nobody can import another module by it
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look for it
    sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    _ran[path] = (changed, module)
    return module
