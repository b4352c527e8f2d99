"""The training loop: unroll, judge, step, validate; for any family and any learned accelerator.

Everything of an update follows from the plan and the number of the update, so that a run that was killed ends with the
weights of an unbroken one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fixedpoint.context import select_rows
from fixedpoint.experiments.evaluation import evaluations_to, generator, score, trace
from fixedpoint.learning.learned import Calibrated, Examples, Learned
from fixedpoint.learning.losses import LOSSES
from fixedpoint.learning.plan import Plan
from fixedpoint.learning.pool import Pool, batch_of, draw
from fixedpoint.learning.run_folder import BEST, Folder, Progress
from fixedpoint.plugins import checkpoint
from fixedpoint.protocol import Accelerator, ProblemFamily
from fixedpoint.solve.loop import Iteration, resolve, roll
from fixedpoint.tensors import pytrees

SAVE_EVERY = 20.0
"""Seconds between saves of the state."""
EXAMPLES = 256
"""Instances that normalisations are fitted on, at most; what is fitted to solutions sees them all."""
MOST_SKIPPED = 10
"""Updates in a row with a gradient that is not finite before the run stops."""


class TrainingError(ArithmeticError):
    """The run cannot go on; the message says where it stopped, why and what to try."""


class Report(NamedTuple):
    """What a run tells after every update."""

    update: int
    updates: int
    loss: float
    evaluations: float | None
    """Median evaluations to 1e-3 on the validation instances; inf: not reached; None: not validated yet."""
    score: float | None
    """Of the best validation so far."""


class Trainer:
    """One training run.

    Args:
        family: where instances come from.
        accelerator: bound to the family's map.
        plan: what to do.
        folder: the run's files; None keeps nothing on disk.
        report: called after every update.

    Raises:
        ValueError: nothing to learn in the accelerator; a loss that needs solutions where the family has none.
    """

    def __init__(
        self,
        family: ProblemFamily,
        accelerator: Accelerator,
        plan: Plan,
        folder: Folder | None = None,
        report: Callable[[Report], Any] | None = None,
    ) -> None:
        if not isinstance(accelerator, nn.Module) or not any(isinstance(m, Learned) for m in accelerator.modules()):
            raise ValueError(f"accelerator: {type(accelerator).__name__} has nothing to learn")
        self.family, self.accelerator, self.plan, self.folder, self.report = family, accelerator, plan, folder, report
        self.module: nn.Module = accelerator
        self.parameters = [p for p in accelerator.parameters() if p.requires_grad]
        moved = self.parameters or [nn.Parameter(torch.zeros(0))]  # one that is only fitted has no parameters
        self.optimizer = torch.optim.Adam(moved, lr=plan.learning_rate, betas=(0.9, 0.99))
        self.progress = Progress()
        self.evaluations: float | None = None
        self.best: dict[str, Tensor] | None = None

    def run(self) -> Accelerator:
        """Train to the end (from where the folder says) and return the accelerator with its best weights.

        Raises:
            TrainingError: a loss that is not finite; the best checkpoint so far is kept.
        """
        began = time.perf_counter()
        saved = None if self.folder is None else self.folder.read()
        if saved is not None:
            self.progress = saved[0]
            self._restore(saved[1])
        if not self.progress.over:
            spent = self.progress.seconds
            pool = draw(self.family, self.accelerator, self.plan)
            if self.folder is not None:
                self.folder.begin()
            untouched = self.accelerator.provenance is None  # else its weights go with an earlier fit
            if saved is None and untouched:
                self._fit(pool)
            try:
                self._loop(pool, began - spent)
            finally:
                self._keep_best()
        self._keep_best()
        return self.accelerator

    def _keep_best(self) -> None:
        """The weights of the best validation, ready for use: also where the run had to stop."""
        if self.best is not None:
            self.module.load_state_dict(self.best)
        self.module.eval()

    def _loop(self, pool: Pool, began: float) -> None:
        plan, progress = self.plan, self.progress
        begun = progress.best is not None  # else the first validation is still to come, whatever the log says
        log = None if self.folder is None else self.folder.log(progress.update if begun else -1)
        updates = plan.updates if self.parameters else 0
        self.validation = self.family.sample(plan.validation, generator=generator(plan.seed, "validation"))
        with torch.no_grad():
            self.validation_context = self.family.map.setup(self.validation)
        try:
            if not begun:
                self._validate(log)
                self._save(began)
            saved_at = time.perf_counter()
            while progress.update < updates and not self._patience_is_out():
                loss = self._update(pool, progress.update)
                progress.update += 1
                _write(log, {"update": progress.update, "loss": loss, "horizon": plan.horizon_at(progress.update - 1)})
                validated = progress.update % plan.validate_every == 0 or progress.update == updates
                if validated:
                    self._validate(log)
                if validated or time.perf_counter() - saved_at > SAVE_EVERY:
                    self._save(began)
                    saved_at = time.perf_counter()
                if self.report is not None:
                    self.report(Report(progress.update, updates, loss, self.evaluations, progress.best))
            progress.over = True
            if plan.keep == "last":
                self.best = {name: t.detach().clone() for name, t in self.module.state_dict().items()}
            self._save(began)
        finally:
            if log is not None:
                log.close()

    def _fit(self, pool: Pool) -> None:
        """Let every learned part look at plain iterations before the first update."""
        count = self.plan.instances if pool.solutions is not None else min(EXAMPLES, self.plan.instances)
        context = select_rows(pool.context, torch.arange(count, device="cpu"))
        with torch.no_grad():
            path = roll(Iteration(self.family.map, context, resolve(None)), self.plan.horizon)
            examples = Examples(
                x=path.x,
                residual=path.fx - path.x,
                features=self.family.map.featurize(context) if self.accelerator.uses_features else None,
                solutions=None if pool.solutions is None else pool.solutions[:count],
            )
            for module in self.module.modules():
                if isinstance(module, Learned):
                    module.fit(examples)

    def _update(self, pool: Pool, update: int) -> float:
        """One step of the optimiser; the loss."""
        plan = self.plan
        index = batch_of(update, plan)
        scene = pool.scene(self.family, index, plan.floor)
        horizon = plan.horizon_at(update)
        weights = torch.tensor(plan.weights_at(horizon), dtype=torch.float64)
        self.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        iteration = Iteration(self.family.map, scene.context, self.accelerator)
        for begin, end in windows(horizon, plan.window):
            path = roll(iteration, end - begin, proceed=end < horizon, checkpoint=plan.checkpoint)
            self._check(path.fx, update, begin, index)
            first = begin + int((weights[begin:end] == 0).sum())  # steps without weight come first: not judged
            if first < end:
                judged = pytrees.transform(lambda t, k=first - begin: t[k:], path)
                losses = LOSSES[plan.loss](judged, scene)
                self._check(losses, update, first, index)
                loss = (weights[first:end, None] * losses).sum() / len(index)
                if loss.requires_grad:
                    loss.backward()
                total += float(loss.detach())
            iteration.detach()
        norm = nn.utils.clip_grad_norm_(self.parameters, plan.clip)
        usable = bool(torch.isfinite(norm))
        self.progress.skipped = 0 if usable else self.progress.skipped + 1
        if usable:
            for group in self.optimizer.param_groups:
                group["lr"] = plan.learning_rate_at(update)
            self.optimizer.step()
        elif self.progress.skipped >= MOST_SKIPPED:
            raise TrainingError(
                f"update {update + 1}: the gradient was not finite {MOST_SKIPPED} times in a row; {self._advice()}"
            )
        return total

    def _check(self, values: Tensor, update: int, first: int, index: Tensor) -> None:
        """Stop where a number is not finite: values (T, B, ...)."""
        bad = (
            ~torch.isfinite(values.detach()).flatten(2).all(2) if values.ndim > 2 else ~torch.isfinite(values.detach())
        )
        if bool(bad.any()):
            step, column = (int(k) for k in bad.nonzero()[0])
            raise TrainingError(
                f"update {update + 1}: not finite at evaluation {first + step + 1} of training instance "
                f"{int(index[column])}; {self._advice()}"
            )

    def _advice(self) -> str:
        kept = "" if self.folder is None else f" Its weights are kept in {self.folder.path / BEST}."
        return (
            "try a smaller learning_rate or clip, a shorter horizon, a window, or a loss with a logarithm. "
            f"The best validation was at update {self.progress.best_update}." + kept
        )

    def _validate(self, log: Any) -> None:
        """Score the accelerator on validation instances and keep it if it is the best."""
        plan, progress = self.plan, self.progress
        self._calibrate()
        self.module.eval()
        errors = trace(self.family, self.accelerator, self.validation, plan.evaluations)[0].numpy()
        found = score(errors, plan.evaluations)
        reached = evaluations_to(1e-3, np.arange(1, plan.evaluations + 1), errors)
        self.evaluations = float(np.quantile(reached, 0.5, method="inverted_cdf"))
        better = progress.best is None or found < progress.best
        if better:
            progress.best, progress.best_update, progress.waited = found, progress.update, 0
            self.best = {name: t.detach().clone() for name, t in self.module.state_dict().items()}
            if self.folder is not None:
                checkpoint.save(self.accelerator, self.folder.path / BEST)
        else:
            progress.waited += 1
        shown = self.evaluations if np.isfinite(self.evaluations) else None
        _write(log, {"update": progress.update, "score": found, "evaluations_to_1e-3": shown, "best": better})

    def _calibrate(self) -> None:
        """Tell modules that want to know which residuals are usual, from unguarded runs on validation instances."""
        wanting = [m for m in self.module.modules() if isinstance(m, Calibrated)]
        if not wanting or self.accelerator.learned_steps is None:
            return
        self.module.train()
        with torch.no_grad():
            iteration = Iteration(self.family.map, self.validation_context, self.accelerator)
            path = roll(iteration, self.accelerator.learned_steps + 1)
            metric = self.family.map.metric(self.validation_context)
            squared = (path.fx - path.x) ** 2
            sizes = (squared if metric is None else squared * metric).sum(2).sqrt()
        for module in wanting:
            module.calibrate(sizes)

    def _patience_is_out(self) -> bool:
        return self.plan.patience is not None and self.progress.waited >= self.plan.patience

    def _save(self, began: float) -> None:
        self.progress.seconds = time.perf_counter() - began
        if self.folder is not None:
            self.folder.write(self.progress, self._tensors())

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"weights/{name}": t for name, t in self.module.state_dict().items()}
        tensors |= {f"best/{name}": t for name, t in (self.best or {}).items()}
        for number, parameter in enumerate(self.parameters):
            for name, t in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{number}/{name}"] = t
        return tensors

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self.module.load_state_dict(part("weights/"))
        self.best = part("best/") or None
        for number, parameter in enumerate(self.parameters):
            if moments := part(f"optimizer/{number}/"):
                self.optimizer.state[parameter] = moments


def windows(horizon: int, window: int | None) -> Iterator[tuple[int, int]]:
    """(begin, end) of the windows of truncated backpropagation."""
    size = window or horizon
    for begin in range(0, horizon, size):
        yield begin, min(begin + size, horizon)


def _write(log: Any, line: dict[str, Any]) -> None:
    if log is not None:
        log.write(json.dumps(line) + "\n")
