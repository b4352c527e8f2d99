"""Every tensor is made on the device of what it belongs to.

Without a GPU: with "meta" as the default device and data on the CPU, whatever is made on the default device breaks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fixedpoint as fp
from fixedpoint.experiments.evaluation import generator
from fixedpoint.plugins.composition import compose
from fixedpoint.tensors import pytrees
from maps.scs import ConeProgram, SparseMatrix, kkt_error, prepare, solve

FAMILIES = ("affine", "elastic-net", "pagerank", "value-iteration")
ACCELERATORS = tuple(name for name in fp.accelerators.names() if name != "aitken")
GRADIENTS: list[Any] = [None, "implicit", "unroll", fp.Truncated(2)]


def both(run: Any) -> list[Any]:
    """The tensors that a run leaves, by the usual default device and by "meta"."""
    with torch.device("meta"):
        odd = run()
    return [list(pytrees.tensors(found).values()) for found in (run(), odd)]


def same(run: Any) -> None:
    for one, two in zip(*both(run), strict=True):
        assert two.device.type == "cpu"
        assert torch.equal(one, two) or torch.allclose(one, two, rtol=1e-12, atol=1e-12, equal_nan=True)


def live(problem: Any) -> tuple[Any, list[Tensor]]:
    """The problem with leaves that require grad, and these."""
    leaves = {n: t.detach().clone() for n, t in pytrees.tensors(problem).items()}
    for leaf in leaves.values():
        if leaf.is_floating_point():
            leaf.requires_grad_()
    return pytrees.replace(problem, leaves), [t for t in leaves.values() if t.requires_grad]


def gradients(solution: Any, leaves: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(solution.sum(), leaves, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, leaves, strict=True)]


@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_maps(name: str, gradient: Any) -> None:
    family = fp.families.create(name)
    problem = family.sample(3, generator=generator(0, "test"))

    def run() -> Any:
        if gradient is None:
            found = fp.solve(family.map, problem, "anderson-2", max_evaluations=40, chunk=2)
            return (found.x, found.status, found.residual)
        given, leaves = live(problem)
        found = fp.solve(family.map, given, None, max_evaluations=30, gradient=gradient)
        return (found.x.detach(), *gradients(found.x, leaves))

    same(run) if gradient is None else _ignoring_warnings(lambda: same(run))


def _ignoring_warnings(run: Any) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fp.AdjointWarning)
        run()


@pytest.mark.parametrize("name", ACCELERATORS)
def test_accelerators(name: str) -> None:
    family = fp.families.create("elastic-net")
    problem = family.sample(9, generator=generator(0, "test"))
    accelerator = fp.accelerators.create(name).bind(family.map.signature)
    if isinstance(accelerator, nn.Module):
        for parameter in accelerator.parameters():
            nn.init.constant_(parameter, 0.01)

    def run() -> Any:
        found = fp.solve(family.map, problem, accelerator, tolerance=1e-6, max_evaluations=60)
        return (found.x, found.status, found.evaluations)

    same(run)


def test_a_composed_accelerator() -> None:
    family = fp.families.create("elastic-net")
    problem = family.sample(9, generator=generator(0, "test"))
    accelerator = compose("gru+anderson-2", {"gru": {"steps": 3, "hidden": 4}}).bind(family.map.signature)
    same(lambda: tuple(fp.solve(family.map, problem, accelerator, max_evaluations=60).x))


def program(sparse: bool = False, shared: bool = False) -> ConeProgram:
    rng = np.random.default_rng(0)
    m, n = 6 + 3 + 3 + 3 + 3, 5
    A, b, c = rng.standard_normal((3, m, n)), rng.standard_normal((3, m)), rng.standard_normal((3, n))
    b[:, 2:6] = 1 + np.abs(b[:, 2:6])
    P = np.broadcast_to(np.eye(n), (3, n, n)).copy()
    cones = {"z": 2, "l": 4, "q": [3], "s": [2], "ep": 1, "p": [0.3]}
    A[:, 6:] *= 0.1
    b[:, 6:] = [2, 0, 0, 2, 0, 2, 0.1, 1, 3, 2, 2, 0.1]
    if shared:
        A, P = A[0], P[0]
    tensors = [torch.from_numpy(part) for part in (A, b, c, P)]
    if sparse:
        pattern = ConeProgram(*tensors[:3], tensors[3], cones).patterns
        tensors[0] = SparseMatrix(tensors[0].reshape(*A.shape[:-2], -1), pattern["A"])  # type: ignore[call-overload]
        values = tensors[3][..., pattern["P"].rows, pattern["P"].columns]
        tensors[3] = SparseMatrix(values, pattern["P"])  # type: ignore[call-overload]
    return ConeProgram(*tensors[:3], tensors[3], cones)


@pytest.mark.parametrize("accelerator", [None, "anderson-2", "safeguarded", "scs-anderson"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize": "shared", "adaptive_scale": False},
        {"normalize": False, "adaptive_scale": False, "eliminate": True},
        {"linear_solver": "cg"},
        {"precision": "mixed"},
        {"chunk": 2},
    ],
    ids=str,
)
def test_conic_solves(options: dict[str, Any], accelerator: str | None) -> None:
    given = program(sparse=options.get("linear_solver") == "cg", shared="normalize" in options)

    def run() -> Any:
        found = solve(given, accelerator, max_evaluations=200, check_interval=5, **options)
        again = solve(given, accelerator, max_evaluations=50, warm_start=found, **options)
        return (found.x, found.y, found.s, found.status, again.x, kkt_error(given, found.x, found.y, found.s))

    same(run)


@pytest.mark.parametrize("options", [{}, {"linear_solver": "cg"}], ids=str)
@pytest.mark.parametrize("gradient", ["implicit", "unroll"])
def test_gradients_of_conic_solves(gradient: Any, options: dict[str, Any]) -> None:
    given = program(sparse="linear_solver" in options)
    budget = {"max_evaluations": 12 if gradient == "unroll" else 1000, "adaptive_scale": False}

    def run() -> Any:
        asked, leaves = live(given)
        found = solve(asked, None, gradient=gradient, eps_abs=1e-6, eps_rel=1e-6, **budget, **options)
        return (found.x.detach(), *gradients(found.x + found.y.sum(), leaves))

    _ignoring_warnings(lambda: same(run))


def test_what_is_prepared() -> None:
    given, static = program(shared=True), {"normalize": "shared", "adaptive_scale": False}
    with torch.device("meta"):
        prepared = prepare(given, **static)
        found = solve(given, None, prepared=prepared, max_evaluations=100, **static)
    assert torch.allclose(found.x, solve(given, None, max_evaluations=100, **static).x, rtol=1e-10)
