"""A run's folder: what was asked, how it went, where it stands. A run that is killed at any moment goes on from here.

plan.json             family, accelerator and plan; a folder of another plan is refused
log.jsonl             one line per update and per validation
state.safetensors     weights, optimiser and counters after the last saved update
best.safetensors      the accelerator with the best validation score so far (see `fixedpoint.plugins.checkpoint`)
trained.safetensors   the result, once the run is over
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from fixedpoint import files

PLAN, LOG, STATE, BEST, TRAINED = (
    "plan.json",
    "log.jsonl",
    "state.safetensors",
    "best.safetensors",
    "trained.safetensors",
)


@dataclass
class Progress:
    """Where a run stands."""

    update: int = 0
    """Updates done."""
    best: float | None = None
    """Best validation score; the smaller the better."""
    best_update: int = 0
    waited: int = 0
    """Validations since then."""
    skipped: int = 0
    """Updates in a row that were dropped because their gradient was not finite."""
    seconds: float = 0.0
    """Time spent, interruptions left out."""
    over: bool = False


class Folder:
    """The files of one run.

    Args:
        path: the folder; made when it is not there.
        plan: everything that determines the result, JSON-able.

    Raises:
        ValueError: the folder belongs to another plan (the message says what differs), or is damaged.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, plan: dict[str, Any]) -> None:
        self.path, self.plan = path, json.loads(json.dumps(plan))
        files.check_folder(path)
        if (path / PLAN).exists():
            self._compare(self.plan)
        elif path.is_dir() and any((path / name).exists() for name in (STATE, BEST, TRAINED, LOG)):
            raise ValueError(f"out: {path} holds a run without its {PLAN}; choose another folder")

    def begin(self) -> None:
        """Claim the folder for this plan; not before the run is known to be possible: a mistake leaves nothing."""
        if not (self.path / PLAN).exists():
            files.write_text(self.path / PLAN, json.dumps(self.plan, indent=2) + "\n")

    def _compare(self, plan: dict[str, Any]) -> None:
        try:
            found = json.loads((self.path / PLAN).read_text())
            flat = [_flat(p) for p in (found, plan)]
        except (ValueError, AttributeError) as error:
            raise ValueError(f"out: {self.path / PLAN} is damaged ({error}); choose another folder") from None
        names = [n for n in {**flat[0], **flat[1]} if flat[0].get(n) != flat[1].get(n)]
        if names:
            listed = "; ".join(f"{n}: {flat[0].get(n)!r} there, {flat[1].get(n)!r} asked" for n in names[:5])
            raise ValueError(f"out: {self.path} belongs to another run ({listed}); choose another folder")

    def read(self) -> tuple[Progress, dict[str, Tensor]] | None:
        """The last saved state: (progress, tensors); None for a fresh run.

        Raises:
            ValueError: it is damaged.
        """
        path = self.path / STATE
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            if header["digest"] != files.digest(header["progress"], tensors):
                raise ValueError("its contents do not match their digest")
            return Progress(**json.loads(header["progress"])), tensors
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"out: {path} is damaged ({error}); delete it to start the run anew") from None

    def write(self, progress: Progress, tensors: dict[str, Tensor]) -> None:
        """Save the state, whole or not at all."""
        kept = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        text = json.dumps(asdict(progress))
        content = to_bytes(kept, metadata={"progress": text, "digest": files.digest(text, kept)})
        with files.replacing(self.path / STATE) as temporary:
            temporary.write_bytes(content)

    def log(self, update: int) -> TextIO:
        """The log, open for appending, with what came after `update` (it was not saved) taken out."""
        path = self.path / LOG
        kept = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                if json.loads(line)["update"] <= update:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):  # the line that was being written when the run was killed
                continue
        files.write_text(path, "".join(kept))
        return path.open("a", buffering=1)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
