"""Train every accelerator that the project ships: the exact commands, in one place.

    make train                                       (all of them; see the times in RESULTS.md)
    .venv/bin/python -m tools.train pagerank    (those of one family, or of FAMILY.SETTING)

Runs go to ./fixedpoint-training, two side by side; one that was interrupted goes on. A finished one is copied to
`accelerators/pretrained/FAMILY/NAME.safetensors`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fixedpoint.experiments.comparison.compare import LOCAL_TRAINING
from fixedpoint.learning.training import TRAINED

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "accelerators" / "pretrained"
JOBS = 2

_SLOW = "--updates 1000 --instances 1000 --learning-rate 0.002"
_FINISH = (
    "--loss log-residual --weights even --horizon 20 --option first_horizon=8 --updates 250 --batch 16 "
    "--instances 800 --option evaluations=20 --option keep=last"
)
_MIDDLE = "--updates 300 --instances 800 --learning-rate 0.003"
_FAST = "--updates 500 --instances 4000 --learning-rate 0.003 --option validate_every=100"
_LONG = "--updates 1000 --instances 4000 --batch 64 --learning-rate 0.003 --option validate_every=100"
_CELL = "--updates 300 --instances 500 --learning-rate 0.007"
_SMALL_CELL = "--updates 300 --instances 2000 --learning-rate 0.007 --option validate_every=100"

_ROBUST = "--updates 400 --instances 4000 --batch 16 --learning-rate 0.003 --option validate_every=100"

_PAIRS = "--instances 8000 --batch 16"

_FINISHED = ", finished"
_ANY_SIZE = "-any-size"

RECIPES: dict[str, dict[str, str]] = {
    "lasso.paper": {
        "gru": f"{_SLOW} --horizon 20",
        "lstm": f"{_SLOW} --horizon 20",
        # then, from these, by the paper's residual at every step: what it plots, from the first evaluations on
        "gru, finished": f"{_FINISH} --from fixedpoint-training/lasso.paper/gru/trained.safetensors",
        "lstm, finished": f"{_FINISH} --from fixedpoint-training/lasso.paper/lstm/trained.safetensors",
        "warm-start+anderson-2": f"{_MIDDLE} --horizon 20",
        "gru+anderson-2": "--updates 400 --instances 1000 --learning-rate 0.003 --horizon 28 --option gru.steps=12",
        "coordinate-gru+anderson-2": f"{_CELL} --horizon 24 --option coordinate-gru.steps=12",
    },
    "lasso": {
        "gru+anderson-2": f"{_MIDDLE} --batch 16 --horizon 14 --option gru.steps=7",
        "lstm+anderson-2": f"{_MIDDLE} --batch 16 --horizon 14 --option lstm.steps=7",
        "warm-start+anderson-2": f"{_MIDDLE} --batch 16 --horizon 14",
        # on the inequalities alone: a quarter of the state, so that an update is cheap and there can be many of them
        "coordinate-gru": "--settings tools/lasso.eliminated.json --updates 2200 --instances 8000 --batch 64 "
        "--horizon 11 --learning-rate 0.012 --option floor=2e-5 --option coordinate-gru.base=anderson-2 "
        "--option coordinate-gru.hidden=32 --option coordinate-gru.steps=14 --option validation=500 "
        "--option validate_every=550 --option keep=last",
        # without embeddings: it serves Lassos of all sizes, see sizes.py
        "coordinate-gru-any-size": f"{_CELL} --batch 16 --horizon 15 --option coordinate-gru.base=anderson-2 "
        "--option coordinate-gru.embedding_size=0",
    },
    "diabetes-lasso": {
        "gru+anderson-2": f"{_FAST} --horizon 20 --option gru.steps=8 --option gru.hidden=64",
        "lstm+anderson-2": f"{_FAST} --horizon 20 --option lstm.steps=8 --option lstm.hidden=64",
        "warm-start+anderson-2": f"{_FAST} --horizon 18",
        "coordinate-gru": f"{_SMALL_CELL} --horizon 20 --option coordinate-gru.base=anderson-2",
    },
    "robust-kalman": {
        "gru": f"{_ROBUST} --horizon 24 --option gru.base=anderson-2 --option gru.hidden=24 --option gru.context=false",
        "warm-start+anderson-2": f"{_ROBUST} --horizon 24 --option warm-start.width=64 "
        "--option warm-start.context=false",
        "warm-start+secants": f"{_PAIRS} --updates 1200 --learning-rate 0.007 --horizon 26 --option validate_every=200 "
        "--option secants.pairs=19 --option secants.steps=30 --option warm-start.width=24 "
        "--option warm-start.context=false",
        # then, from there, with weights from evaluation 10 on: before that, no error counts
        "warm-start+secants, finished": f"{_PAIRS} --updates 500 --learning-rate 0.004 --horizon 20 "
        "--option first_horizon=20 --option validate_every=100 "
        "--from fixedpoint-training/robust-kalman/warm-start+secants/trained.safetensors",
    },
    "robust-kalman.metric": {  # on the metric that metric.py learned
        "warm-start+secants": f"{_PAIRS} --updates 700 --learning-rate 0.005 --horizon 22 --option validate_every=100 "
        "--option secants.pairs=16 --option secants.steps=10 --option warm-start.width=48 "
        "--option warm-start.context=false",
        "warm-start+anderson-2": f"{_PAIRS} --updates 700 --learning-rate 0.004 --horizon 22 "
        "--option validate_every=100 --option warm-start.width=48 --option warm-start.context=false",
        "warm-start+learned-momentum": f"{_PAIRS} --updates 700 --learning-rate 0.005 --horizon 20 "
        "--option validate_every=100 --option warm-start.width=48 --option warm-start.context=false "
        "--option learned-momentum.steps=14",
    },
    "robust-pca": {
        "gru": f"{_ROBUST} --horizon 32 --option gru.base=anderson-2 --option gru.hidden=56 --option gru.steps=30",
        "warm-start+anderson-2": f"{_ROBUST} --horizon 32 --option warm-start.width=64",
    },
    "robust-pca.norms": {  # a site is an entry of the matrix: its places in S and in L
        "site-gru": "--updates 1000 --instances 8000 --batch 16 --learning-rate 0.004 --horizon 36 "
        "--option first_horizon=14 --option validate_every=250 --option keep=last --option site-gru.base=anderson-2 "
        "--option site-gru.steps=14 --option site-gru.hidden=32 --option site-gru.shape=[3,30] "
        "--option site-gru.heads=[0,91,182] --option evaluations=60",
    },
    "elastic-net": {
        "gru": f"{_LONG} --horizon 25 --option gru.steps=25 --option gru.hidden=64",
        "lstm": f"{_LONG} --horizon 25 --option lstm.steps=25 --option lstm.hidden=64",
        "warm-start+anderson-2": f"{_FAST} --horizon 25",
        "coordinate-gru": f"{_SMALL_CELL} --horizon 25 --option coordinate-gru.base=anderson-1",
        "mixing": f"{_SMALL_CELL} --horizon 30",
    },
    "pagerank": {
        "gru+anderson-2": f"{_FAST} --horizon 16 --option gru.steps=6 --option gru.hidden=64",
        "lstm+anderson-2": f"{_FAST} --horizon 16 --option lstm.steps=6 --option lstm.hidden=64",
        "warm-start+anderson-2": f"{_FAST} --horizon 14",
        "coordinate-gru": f"{_SMALL_CELL} --horizon 16 --option coordinate-gru.base=anderson-2",
    },
    "value-iteration": {
        "gru+anderson-2": f"{_FAST} --horizon 22 --option gru.steps=8 --option gru.hidden=64",
        "lstm+anderson-2": f"{_FAST} --horizon 22 --option lstm.steps=8 --option lstm.hidden=64",
        "warm-start+anderson-2": f"{_FAST} --horizon 22",
        "coordinate-gru": f"{_SMALL_CELL} --horizon 22 --option coordinate-gru.base=anderson-2",
    },
}


def main() -> None:
    """Train what the arguments name (families or FAMILY.SETTING), or everything."""
    wanted = sys.argv[1:] or list(RECIPES)
    if unknown := [name for name in wanted if name not in RECIPES]:
        sys.exit(f"no recipes for {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    jobs = [(where, name) for where in wanted for name in RECIPES[where]]
    jobs.sort(key=lambda job: job[1].endswith(_FINISHED))
    with ThreadPoolExecutor(JOBS) as pool:
        failed = [job for job, good in zip(jobs, pool.map(lambda job: _train(*job), jobs), strict=True) if not good]
    if failed:
        sys.exit(f"failed: {', '.join(f'{where} {name}' for where, name in failed)}")


def _train(where: str, name: str) -> bool:
    family, _, setting = where.partition(".")
    options = [*(["--setting", setting] if setting else []), *RECIPES[where][name].split()]
    called = name.removesuffix(_FINISHED)
    accelerator = called.removesuffix(_ANY_SIZE)  # a name of its own beside the one with embeddings
    folder = LOCAL_TRAINING / (where if name == called else f"{where}.finished") / called
    done = subprocess.run(
        [sys.executable, "-m", "fixedpoint", "train", family, accelerator, *options, "--out", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # two runs side by side beat one on two threads
        capture_output=True,
        text=True,
    )
    print(f"== {where} {name}\n{done.stdout}{done.stderr}", flush=True)
    if done.returncode == 0:
        target = SHIPPED / where / f"{called}.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / folder / TRAINED, target)
    return done.returncode == 0


if __name__ == "__main__":
    main()
