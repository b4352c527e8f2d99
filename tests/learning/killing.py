"""A program: train in FOLDER/whole, train the same in FOLDER/parts killed again and again; see `test_kill`."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import fixedpoint as fp
from fixedpoint.learning import trainer
from fixedpoint.learning.run_folder import LOG
from fixedpoint.learning.training import train
from maps.elastic_net import RandomElasticNet

KILLS = 10
PLAN: dict[str, Any] = {
    "horizon": 4,
    "updates": 40,
    "batch": 4,
    "instances": 12,
    "validation": 4,
    "evaluations": 8,
    "validate_every": 4,
    "loss": "log-residual",
}


def run(out: Path) -> dict[str, Any]:
    """Train to the end, from wherever the folder stands: what is to be the same however that came about."""
    trained = train(RandomElasticNet(6), fp.accelerators.create("coordinate-gru", hidden=2, steps=4), out=out, **PLAN)
    assert trained.provenance is not None
    return {key: trained.provenance[key] for key in ("score", "best_update", "updates")}


def killed(out: Path, size: int, delay: float) -> bool:
    """Go on in a process of its own, and kill it a moment after the log it writes has reached the size."""
    log = out / LOG
    old = log.open() if log.exists() else None  # held open, so that its inode is not given to the new one
    child = os.fork()
    if child == 0:
        try:
            run(out)
        finally:
            os._exit(0)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        now = log.stat() if log.exists() else None
        begun = now is not None and (old is None or now.st_ino != os.fstat(old.fileno()).st_ino)
        if begun and now is not None and now.st_size >= size:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            return os.WIFSIGNALED(status)
        time.sleep(0.0005)
    return False


def main(folder: Path, seed: int) -> None:
    """Print what came of both runs, as JSON."""
    whole = run(folder / "whole")
    chance = random.Random(seed)
    length = (folder / "whole" / LOG).stat().st_size
    sizes = sorted(chance.randrange(int(0.95 * length)) for _ in range(KILLS))
    kills = []
    for count, size in enumerate(sizes):
        trainer.SAVE_EVERY = 0.0 if count % 2 else 1e9
        kills.append(killed(folder / "parts", size, chance.uniform(0, 0.005)))
    print(json.dumps({"whole": whole, "parts": run(folder / "parts"), "kills": kills}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
