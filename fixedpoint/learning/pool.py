"""The training instances: drawn and prepared once, handed out in batches."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fixedpoint.context import select_rows
from fixedpoint.experiments.evaluation import generator
from fixedpoint.learning.learned import Learned
from fixedpoint.learning.losses import NEEDS_SOLUTIONS, Scene
from fixedpoint.learning.plan import Plan
from fixedpoint.protocol import Accelerator, ProblemFamily
from fixedpoint.tensors import pytrees


class Pool(NamedTuple):
    """The training instances, prepared once."""

    problem: Any
    context: Any
    solutions: Tensor | None

    def scene(self, family: ProblemFamily, index: Tensor, floor: float) -> Scene:
        """The instances in `index`."""
        problem = pytrees.take_rows(self.problem, family.map.ranks, index)
        solutions = None if self.solutions is None else self.solutions[index]
        return Scene(family, problem, select_rows(self.context, index), solutions, floor)


def draw(family: ProblemFamily, accelerator: Accelerator, plan: Plan) -> Pool:
    """The pool of a run, with solutions where the loss or a part of the accelerator needs them.

    Raises:
        ValueError: they are needed and the family has none.
    """
    problem = family.sample(plan.instances, generator=generator(plan.seed, "train"))
    modules = accelerator.modules() if isinstance(accelerator, nn.Module) else []
    needy = [type(m).__name__ for m in modules if isinstance(m, Learned) and m.needs_solutions]
    needed = plan.loss in NEEDS_SOLUTIONS or bool(needy)
    solutions = family.solutions(problem) if needed else None
    if needed and solutions is None:
        what = f'loss: "{plan.loss}"' if plan.loss in NEEDS_SOLUTIONS else f"accelerator: {needy[0]}"
        raise ValueError(
            f"{what} needs solutions to learn from, but {type(family).__name__} has none; write its `solutions`, or "
            'choose something that learns without, such as loss "log-error"'
        )
    with torch.no_grad():
        return Pool(problem, family.map.setup(problem), solutions)


def batch_of(update: int, plan: Plan) -> Tensor:
    """(batch,) the instances of an update: every epoch a new order, drawn from the seed and the epoch alone."""
    per_epoch = plan.instances // plan.batch
    epoch, place = divmod(update, per_epoch)
    state = np.random.SeedSequence([plan.seed, 7, epoch]).generate_state(1, np.uint64)[0]
    order = torch.randperm(plan.instances, generator=torch.Generator().manual_seed(int(state >> np.uint64(1))))
    return order[place * plan.batch : (place + 1) * plan.batch]
