"""The three things a user may plug in: a map, an accelerator, a family of problems.

A map knows nothing of accelerators and an accelerator nothing of maps; the loop in `iterate` runs any pair:

    problem --setup--> context --initial--> x --+--> retract --> evaluate --> assess --> stop? --> output
                          |                     |                   |
                          +----featurize--> phi-+   accelerator.step(Evaluation, state) --> next x

This is Algorithm 1 of Venkataraman & Amos, "Neural Fixed-Point Acceleration for Convex Optimization" (2021).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from fixedpoint.context import rows
from fixedpoint.gradients import adjoint
from fixedpoint.search_space import SearchSpace
from fixedpoint.signature import Signature
from fixedpoint.solution import Adaptation, Assessment, Check, Evaluation, Status
from fixedpoint.tensors import pytrees

Problem = TypeVar("Problem")
Ctx = TypeVar("Ctx")

PROMISES = frozenset({"scale-invariant", "rotation-invariant", "finite-termination", "safeguarded"})


class FixedPointMap(ABC, Generic[Problem, Ctx]):
    """A map f(x; problem) whose fixed point is wanted, for a whole batch at a time.

    The simplest map writes `signature`, `initial` and `forward` and takes as its problem a tensor or NamedTuple
    of batch-first tensors. Laws (`fixedpoint.checks.check_map` tests them): shape and dtype kept; inputs never
    changed; bitwise repeatable; row i of the result depends on row i of the input only; differentiable, composing
    with torch.func; declared traits true.
    """

    signature: Signature
    ranks: ClassVar[Mapping[str, int] | None] = None
    """Number of axes of each problem leaf, by name, for ONE instance without the batch axis. A leaf of that rank
    is shared by the batch, a leaf with one axis more has a row per instance, and a problem none of whose leaves
    has the extra axis is a single problem. None: every leaf is batch-first."""
    tunable: ClassVar[Mapping[str, SearchSpace]] = {}
    """Constructor arguments that `fixedpoint tune` may choose."""
    built_with: Any = None
    """What was chosen for this map beyond its signature, as a value with ==: what another map prepared is refused."""

    @abstractmethod
    def initial(self, context: Ctx) -> Tensor:
        """(B, n) the cold start."""

    def resume(self, output: Any, context: Ctx) -> Tensor:
        """(B, n) the start that belongs to an `output` of this map, of an earlier solve say.

        Raises:
            TypeError: this map cannot start from outputs (the default).
        """
        raise TypeError(f"start: {type(self).__name__} starts from tensors (B, n) only, not from an output")

    @abstractmethod
    def forward(self, x: Tensor, context: Ctx) -> Tensor:
        """(B, n) -> (B, n): f(x)."""

    def faults(self, problem: Problem) -> Mapping[str, Tensor]:
        """Data faults of single instances: message -> (B,) bool. Non-finite numbers are found by the core."""
        return {}

    def setup(self, problem: Problem) -> Ctx:
        """Once per batch: scale, factor. Default: the problem itself is the context, every leaf a row."""
        return problem  # type: ignore[return-value]

    def prepare(self, problem: Problem) -> Any:
        """What a batch shares, made from the shared leaves of a problem alone (a scaling, factors), for `setup_shared`.

        None, the default, where there is nothing worth keeping.
        """
        return None

    def setup_shared(self, problem: Problem, shared: Any) -> Ctx:
        """`setup`, with what `prepare` made for the same shared leaves. Default: `setup`."""
        return self.setup(problem)

    def featurize(self, context: Ctx) -> Tensor:
        """(B, k) what a learned accelerator sees of the problem. Default: the rows, flattened."""
        parts = [t for t in pytrees.tensors(rows(context)).values() if t.is_floating_point()]
        return torch.cat([t.reshape(t.shape[0], -1) for t in parts], dim=1)

    def retract(self, x: Tensor, context: Ctx) -> Tensor:
        """(B, n) the representative of x. Default x; a homogeneous map normalises here, so that its fixed point
        is isolated.
        """
        return x

    def dehomogenized(self, x: Tensor, context: Ctx) -> Tensor:
        """(B, k) x free of any homogeneous scale, for losses and reports that must not be inflatable. Default x.

        A map whose x is a ray divides the scale out here and gives inf where it vanishes (SCS: v / v_tau, the
        tau-normalisation of the neural-acceleration paper), so that such an instance never looks good.
        """
        return x

    def evaluate(self, x: Tensor, context: Ctx) -> tuple[Tensor, Any]:
        """(f(x), by-products for `assess` and `output`), so that nothing is computed twice."""
        return self.forward(x, context), None

    def metric(self, context: Ctx) -> Tensor | None:
        """(B, n) positive diagonal of the norm in which f is nonexpansive; None for the Euclidean norm."""
        return None

    def assess(self, evaluation: Evaluation, aux: Any, context: Ctx) -> Assessment:
        """The residual (B,) that the tolerance applies to, and verdicts. Default: ||f(x) - x||_2, no verdicts."""
        residual = torch.linalg.vector_norm(evaluation.residual, dim=-1)
        return Assessment(residual, torch.full_like(residual, Status.RUNNING, dtype=torch.int64))

    def adapt(self, at: Evaluation, aux: Any, context: Ctx, check: Check) -> Adaptation | None:
        """Change the context after a check of a solve (an adaptive scale, say); None: it stays. Default: it stays.

        `unroll`, training and comparisons do not call it: there the map is what it is from the start.

        Args:
            at, aux: the evaluation that was checked, and its by-products.
            context: in whose terms it was made.
            check: its assessment, and how many evaluations there were since the check before.
        """
        return None

    def original(self, at: Evaluation, aux: Any, context: Ctx) -> Tensor:
        """(B, n) the point of an evaluation in the coordinates of `setup`: what a solve returns. Default: itself.

        A map whose `adapt` changes coordinates changes them back here, so that gradients, and solves that start there,
        read the point as it was meant.
        """
        return at.x

    def output(self, evaluation: Evaluation, aux: Any, context: Ctx) -> Any:
        """What the user asked for: a tensor or NamedTuple of batch-first tensors. Default: f(x)."""
        return evaluation.fx

    def implicit_vjp(
        self, x_star: Tensor, context: Ctx, cotangent: Tensor, of_output: tuple[Tensor, ...] = ()
    ) -> Problem:
        """Gradient of <cotangent, x*> + <of_output, output> with respect to the leaves of the problem.

        Solves (I - d(f o retract)/dx)^T w = cotangent, then returns (df/dproblem)^T w in the problem's own
        structure. The default serves any map (`fixedpoint.gradients.adjoint`); a map with structure overrides it, and
        may leave out the last argument: what is asked of its output then comes as a cotangent of x*.

        Args:
            x_star: (B, n) the fixed points.
            context: of `setup`.
            cotangent: (B, n) of x*.
            of_output: of the output's tensors, in order; () where nothing is asked of it.

        Warns:
            AdjointWarning: the linear system was not solved for some instances (it names them).
        """
        return adjoint.implicit_vjp(self, x_star, context, cotangent, of_output)


class Accelerator(ABC):
    """Chooses the next point from evaluations: g_init and g_acc of Algorithm 1.

    A state is a NamedTuple (or other pytree) of batch-first tensors of fixed shape and dtype; the accelerator
    itself holds settings (and weights) only, so that instances never couple and runs never interfere.
    """

    signature: Signature | None = None
    """The maps that it was built for; None: any."""
    provenance: Mapping[str, Any] | None = None
    """Where its weights come from, JSON-able; set by training, kept by saving and loading."""
    uses_features: bool = True
    """Whether `init` reads `features`; when False the loop does not compute them and passes None."""
    learns_from_others: ClassVar[bool] = False
    """Whether evaluations at points that others chose are of use to it (a history of secants, say): a schedule then
    shows it all of them from the start."""
    learned_steps: int | None = None
    """Evaluations from the start after which nothing learned has a say; None: nothing is learned at all."""
    promises: frozenset[str] = frozenset()
    """Further promises, of a class or of one instance, that `check_accelerator` tests: "scale-invariant";
    "rotation-invariant"; "finite-termination" (an affine map of dimension d <= `memory` is solved by evaluation d + 2);
    "safeguarded" (made with `inner=` any accelerator, it converges wherever the plain map does)."""
    tunable: ClassVar[Mapping[str, SearchSpace]] = {}
    """Constructor arguments that `fixedpoint tune` may choose."""

    def check(self, signature: Signature) -> None:  # noqa: B027 - an optional hook
        """Raise ValueError when this accelerator cannot serve maps of this signature. Default: it serves all."""

    def bind(self, signature: Signature) -> Accelerator:
        """This accelerator, ready for maps of this signature; the loop runs what is returned.

        Default: itself, after `check`. A learned accelerator made without a signature is built here; one that holds
        others binds them.

        Raises:
            ValueError: it cannot serve these maps; the message says why.
        """
        self.check(signature)
        return self

    @abstractmethod
    def init(self, x0: Tensor, features: Tensor | None, metric: Tensor | None = None) -> tuple[Tensor, Any]:
        """(x_1, state) from the cold start (B, n), the features (B, k) and the diagonal metric (B, n)."""

    @abstractmethod
    def step(self, at: Evaluation, state: Any) -> tuple[Tensor, Any]:
        """(next x (B, n), next state) after one evaluation."""

    def restart(self, x0: Tensor, metric: Tensor | None = None) -> Any:
        """The state for starting at x0 as if nothing had been learned, shaped as `init`'s. Default: `init`'s own."""
        return self.init(x0, None, metric)[1]


class ProblemFamily(ABC):
    """A distribution of problems for one bound map: what is tuned, trained and compared on."""

    map: FixedPointMap
    needs: ClassVar[tuple[str, ...]] = ()
    """Importable modules that it needs beyond the core's dependencies, for `fixedpoint list` and for the error that
    says what to install."""
    tunable: ClassVar[Mapping[str, SearchSpace]] = {}
    """Constructor arguments that `fixedpoint tune` may choose: the map's, and the problem's form."""
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Named constructor arguments, such as a paper's setting: what `--setting NAME` chooses."""
    shifts: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Named constructor arguments that change the distribution but not the map, laid over the others: comparisons
    show how an accelerator fares where it was not trained."""
    form: str = "standard"
    """Name of the formulation, for tables."""
    error_kind: str = "residual"
    """"kkt" when `error` is the KKT error of a conic program in its original data, else "residual"."""

    @abstractmethod
    def sample(self, batch: int, *, generator: torch.Generator) -> Any:
        """A batch of `batch` problems, drawn with `generator` alone."""

    def error(self, problem: Any, output: Any, residual: Tensor) -> Tensor:
        """(B,) the error that comparisons report. Default: the map's own undamped residual."""
        return residual

    def reference(self, problem: Any) -> Tensor | None:
        """(B, n) the fixed points, where they are known independently of the iteration."""
        return None

    def solutions(self, problem: Any) -> Tensor | None:
        """(B, n) fixed points to learn from; None when the family has none. Default: `reference`."""
        return self.reference(problem)

    def merit(self, problem: Any, output: Any, residual: Tensor) -> Tensor:
        """(B,) what training may minimise in place of `error`: as small at the same points, smoother. Default: it."""
        return self.error(problem, output, residual)

    def peers(self) -> list[Any]:
        """Outside solvers (`experiments.evaluation.Peer`) with settings of their own, to print beside ours."""
        return []

    def matched_peers(self) -> list[Any]:
        """Outside solvers run with this family's static settings."""
        return []

    @classmethod
    def tuned_file(cls) -> Path:
        """The family's shipped settings: NAME_OF_MODULE.json beside the module, whether or not it exists."""
        return Path(inspect.getfile(cls)).with_suffix(".json")
