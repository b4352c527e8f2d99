# Two commands do everything from a fresh clone: `make demo` and `make test`. Both make their own virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# small batches lose more to thread hand-over than they gain; the tests use the cores by running side by side
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

.PHONY: demo test bench bench-families bench-learning bench-engine bench-layers bench-paper metric train quick lint clean

demo: $(VENV)/.ready ## classical and learned acceleration compared on real data, with a plot at the end
	OMP_NUM_THREADS=1 $(BIN)/fixedpoint compare diabetes-lasso --instances 64 --steps 50 --out results/diabetes-lasso

test: $(VENV)/.ready ## all tests
	$(PYTEST)

bench: bench-families bench-learning bench-engine ## all of it; half an hour each, on an idle machine

bench-families: $(VENV)/.ready ## evaluations of every shipped family, held out and shifted; writes benchmarks/RESULTS.md
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.accelerators.families

bench-learning: $(VENV)/.ready ## how many training instances it takes, one training for all sizes; part of benchmarks/RESULTS.md
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.accelerators.generalisation
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.accelerators.seeds
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.accelerators.sizes
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.accelerators.families report

bench-engine: $(VENV)/.ready ## milliseconds against the scs package, memory, the floor; writes benchmarks/ENGINE.md
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed run --families lasso robust-pca
	$(BIN)/python -m benchmarks.speed run --families robust-kalman # on torch's threads, in one process
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed memory
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed.floor
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed report

bench-layers: $(VENV)/.ready ## CvxpyFamily against cvxpylayers, which it installs
	$(BIN)/python -m pip install --quiet --editable ".[layers]"
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.speed.cvxpy_family

bench-paper: $(VENV)/.ready ## the paper's experiments in its own setting; trains what has no weights; writes benchmarks/PAPER.md
	for problem in lasso robust-pca robust-kalman elastic-net; do \
		OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.paper $$problem || exit 1; \
	done

metric: $(VENV)/.ready ## learn the metric of --setting metric anew, which `make train` then trains on; minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.metric

train: $(VENV)/.ready ## train all that is shipped anew; goes on where it was interrupted
	$(BIN)/python -m tools.train

quick: $(VENV)/.ready ## the tests that take seconds
	$(PYTEST) -m "not slow"

lint: $(VENV)/.ready ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The dev extra brings everything; pyproject.toml keeps torch below the releases that pull CUDA in.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) results build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
