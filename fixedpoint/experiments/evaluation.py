"""The one protocol by which every accelerator and every peer is compared.

Held-out instances, the family's own referee, every accelerator from its own cold start. The result of a comparison is a
list of records (plain dicts, one per row of the table); tables and plots are made from records alone.
"""

from __future__ import annotations

import math
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fixedpoint.experiments.clocks import Clock, TimedAccelerator, TimedMap
from fixedpoint.protocol import Accelerator, FixedPointMap, ProblemFamily
from fixedpoint.solution import Status
from fixedpoint.solve.loop import unroll
from fixedpoint.tensors import pytrees

TARGETS = (1e-2, 1e-3, 1e-4)
"""Errors whose evaluations are counted."""
AIM = 1e-3
"""Error whose evaluations tuning and training minimise; those to a tenth of it count a little, for the tail."""
SPLITS = {"train": 0, "validation": 1, "test": 2}

QUANTILES = {"p10": 0.1, "median": 0.5, "p90": 0.9}

Record = dict[str, Any]


def generator(seed: int, split: str) -> torch.Generator:
    """A random stream of its own for each seed and split, so that no held-out instance is ever trained or tuned on.

    Raises:
        ValueError: a negative seed or an unknown split.
    """
    if seed < 0:
        raise ValueError(f"seed: expected a whole number >= 0, got {seed}")
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {list(SPLITS)}, got {split!r}")
    state = np.random.SeedSequence([seed, SPLITS[split]]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class PeerPoint(NamedTuple):
    """Where a peer is after a number of evaluations."""

    evaluations: int
    error: Tensor
    """(B,) by the family's referee."""
    setup: float
    """Seconds of setup, all instances."""
    total: float
    """Seconds in all."""


class Peer(ABC):
    """An outside solver printed beside ours."""

    name: str
    settings: dict[str, Any]

    @abstractmethod
    def run(self, problem: Any, evaluations: Iterable[int]) -> Iterator[PeerPoint]:
        """Yield a point for each number of evaluations (ascending); the caller may stop early."""


def trace(family: ProblemFamily, accelerator: Accelerator, problem: Any, steps: int) -> tuple[Tensor, dict[str, float]]:
    """(errors (T, B), seconds spent in setup, map and accelerator) of `steps` evaluations."""
    setup, run, acceleration = Clock(), Clock(), Clock()
    timed = TimedMap(family.map, setup, run)
    with torch.no_grad():
        trajectory = unroll(
            timed, problem, TimedAccelerator(accelerator.bind(family.map.signature), acceleration), steps
        )

        def error(k: int) -> Tensor:
            return family.error(problem, pytrees.transform(lambda t: t[k], trajectory.output), trajectory.residual[k])

        errors = torch.stack([error(k) for k in range(steps)])
    return _infinite(errors), {"setup": setup.seconds, "map": run.seconds, "accelerator": acceleration.seconds}


def fixed_point_residuals(
    family: ProblemFamily, accelerator: Accelerator, problem: Any, steps: int
) -> np.ndarray | None:
    """(T, B) the residual ||f(x) - x||_2 of normalised points; None for a map whose points need no normalisation.

    For SCS it is the tau-normalised residual of the neural-acceleration paper. It is not timed.
    """
    map = family.map
    if type(map).dehomogenized is FixedPointMap.dehomogenized:
        return None
    with torch.no_grad():
        path, context = unroll(map, problem, accelerator, steps), map.setup(problem)
        found = [normalized_residual(map, x, fx, context) for x, fx in zip(path.x, path.fx, strict=True)]
    return _infinite(torch.stack(found)).numpy()


def normalized_residual(map: FixedPointMap, x: Tensor, fx: Tensor, context: Any) -> Tensor:
    """(B,) the fixed-point residual ||f(x) - x||_2 of normalised points; inf where they have no scale.

    Its derivative is 0 where it is 0 or infinite.
    """
    return finite_norm(map.dehomogenized(fx, context) - map.dehomogenized(x, context))


def finite_norm(difference: Tensor) -> Tensor:
    """(B,) Euclidean length of the rows, inf where they are not finite, with a derivative of 0 there and at 0."""
    usable = torch.isfinite(difference).all(1)
    squared = torch.where(usable[:, None], difference, 0.0).square().sum(1)
    positive = squared > 0
    size = torch.where(positive, torch.sqrt(torch.where(positive, squared, torch.ones_like(squared))), 0.0)
    return torch.where(usable, size, torch.inf)


def _infinite(errors: Tensor) -> Tensor:
    """The errors with inf in place of NaN, so that what was lost counts as not reached."""
    return torch.where(torch.isfinite(errors), errors, torch.inf)


def measure(
    family: ProblemFamily, accelerator: Accelerator, problem: Any, *, steps: int, repeats: int = 3
) -> tuple[np.ndarray, dict[str, float]]:
    """Errors (T, B) and milliseconds per instance (median over `repeats` runs, after a warm-up)."""
    trace(family, accelerator, problem, min(steps, 2))
    runs = [trace(family, accelerator, problem, steps) for _ in range(repeats)]
    batch = runs[0][0].shape[1]
    parts = {part: 1e3 * float(np.median([seconds[part] for _, seconds in runs])) / batch for part in runs[0][1]}
    return runs[0][0].numpy(), {**parts, "total": sum(parts.values())}


def measure_peer(
    peer: Peer, problem: Any, *, steps: int, horizon: int
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """(evaluations (K,), errors (K, B), milliseconds per instance at `steps`).

    Every evaluation up to `steps`, every fifth to 200, every 25th to `horizon`, until all instances are at the smallest
    target.
    """
    grid = [k for k in range(1, horizon + 1) if k <= steps or (k <= 200 and k % 5 == 0) or k % 25 == 0]
    points = []
    for point in peer.run(problem, grid):
        points.append(point._replace(error=_infinite(point.error)))
        if point.evaluations >= steps and bool((point.error <= TARGETS[-1]).all()):
            break
    at = max((p for p in points if p.evaluations <= steps), key=lambda p: p.evaluations)
    batch = at.error.shape[0]
    spent = {"setup": 1e3 * at.setup / batch, "total": 1e3 * at.total / batch}
    milliseconds = {
        "setup": spent["setup"],
        "map": spent["total"] - spent["setup"],
        "accelerator": 0.0,
        "total": spent["total"],
    }
    return np.array([p.evaluations for p in points]), np.stack([p.error.numpy() for p in points]), milliseconds


def evaluations_to(target: float, evaluations: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """(B,) first of the `evaluations` (K,) at which the error (K, B) is at most the target; inf if it never is."""
    reached = errors <= target
    return np.where(reached.any(0), evaluations[reached.argmax(0)].astype(float), np.inf)


def score(errors: np.ndarray, steps: int) -> float:
    """What tuning and training minimise, from errors (T, B), by evaluations to `AIM`.

    It is the mean of their median and 90th percentile, plus a tenth of the same for a tenth of the aim. A hundredth of
    the mean breaks ties. An instance that did not get there counts as twice the steps, plus the decades it is away.
    """
    grid = np.arange(1, errors.shape[0] + 1)
    total = 0.0
    for target, weight in ((AIM, 1.0), (AIM / 10, 0.1)):
        reached = evaluations_to(target, grid, errors)
        away = np.log10(np.clip(errors.min(0) / target, 1, 1e12))
        counts = np.where(np.isfinite(reached), reached, 2 * steps + steps * away / 12)
        total += weight * float(np.mean(np.quantile(counts, [0.5, 0.9])) + 1e-2 * np.mean(counts))
    return total


def record(
    identity: Record,
    evaluations: np.ndarray,
    errors: np.ndarray,
    milliseconds: dict[str, float],
    settings: dict[str, Any],
    residuals: np.ndarray | None = None,
) -> Record:
    """One row of a comparison, JSON-able.

    Args:
        identity: "family", "form", "setting", "accelerator", "variant", "peer", "seed", "steps", the kind of "error",
            "shift" and "training".
        evaluations: (K,) ascending.
        errors: (K, B) after so many evaluations.
        milliseconds: per instance, of "setup", "map", "accelerator" and in "total".
        settings: the options that differ from the defaults.
        residuals: (K, B) normalised fixed-point residuals, see `fixed_point_residuals`.
    """
    steps = identity["steps"]
    marks = sorted({k for k in (5, 10, 20, 30, 50) if k <= steps} | {steps})
    return {
        **identity,
        "instances": errors.shape[1],
        "error_at": {str(k): _summary(errors[np.searchsorted(evaluations, k)]) for k in marks},
        "residual_at": None
        if residuals is None
        else {str(k): _summary(residuals[np.searchsorted(evaluations, k)]) for k in marks},
        "evaluations_to": {_label(t): _summary(evaluations_to(t, evaluations, errors)) for t in TARGETS},
        "ms_per_instance": {part: round(value, 5) for part, value in milliseconds.items()},
        "batch": 1 if identity["peer"] else errors.shape[1],
        "status": _statuses(errors),
        "settings": settings,
        "curve": {
            "evaluations": evaluations.tolist(),
            **{name: [_finite(v) for v in _quantile(errors, q)] for name, q in QUANTILES.items()},
        },
        "versions": versions(),
        "revision": revision(),
    }


def _label(target: float) -> str:
    """1e-3, not 1e-03."""
    return f"{target:.0e}".replace("e-0", "e-")


def _summary(values: np.ndarray) -> dict[str, float | None]:
    return {"median": _finite(_quantile(values, 0.5)), "p90": _finite(_quantile(values, 0.9))}


def _quantile(values: np.ndarray, q: float) -> Any:
    """Quantile over the last axis, an observed value (so that inf means: not reached by that share)."""
    return np.quantile(values, q, axis=-1, method="inverted_cdf")


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _statuses(errors: np.ndarray) -> dict[str, int]:
    """CONVERGED: the smallest target was reached; DIVERGED: the last error is not finite."""
    reached = (errors <= TARGETS[-1]).any(0)
    lost = ~reached & ~np.isfinite(errors[-1])
    counts = {
        Status.CONVERGED.name: int(reached.sum()),
        Status.MAX_EVALUATIONS.name: int((~reached & ~lost).sum()),
        Status.DIVERGED.name: int(lost.sum()),
    }
    return {name: count for name, count in counts.items() if count}


def versions(packages: Sequence[str] = ("fixedpoint-acceleration", "torch", "numpy", "scs", "cvxpy")) -> dict[str, str]:
    """Installed versions of what a result depends on."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def revision() -> str | None:
    """The git revision of the source, "+" if it has changes; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head, dirty = (
            subprocess.run(
                ["git", "-C", str(root), *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if dirty else "")
