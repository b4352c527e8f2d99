"""Small random cone programs over all of SCS's cones, of a known kind, and two outside solvers to judge them.

Points inside the cones are written down from the cones' definitions, so that nothing here depends on our projections.
A problem is solvable since both it and its dual are given a point in the interior; it is infeasible (unbounded) since
it is given a certificate in the interior, and its dual (it) a point in the interior.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import clarabel as interior_point
import numpy as np
import pytest
import scs
from scipy import linalg, sparse

from maps.scs import ConeProgram

Kind = Literal["solvable", "infeasible", "unbounded"]
KINDS: tuple[Kind, ...] = ("solvable", "infeasible", "solvable", "unbounded")


class Case(NamedTuple):
    """A problem and what is known of it."""

    data: dict[str, Any]
    """"A" (SciPy CSC), "b", "c" and maybe "P" (SciPy CSC, both triangles)."""
    cones: dict[str, Any]
    """As the scs package has it."""
    kind: Kind

    def program(self) -> ConeProgram:
        """The problem for our solver."""
        return ConeProgram(**self.data, cones=self.cones)


class Answer(NamedTuple):
    """What a solver says; vectors are NaN where it gives none."""

    status: Literal["solved", "infeasible", "unbounded", "unsure"]
    x: np.ndarray
    y: np.ndarray
    s: np.ndarray
    iterations: int


class Block(NamedTuple):
    """One cone of the product."""

    key: str
    rows: int
    option: Any = None
    """Bounds (k, 2), order or exponent, as the key has it."""


def draw(seed: int) -> Case:
    """The problem with this number: n from 3 to 15, m up to 60; one in four is badly scaled."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    n = int(rng.integers(3, 16))
    cones = _cones(rng, n)
    blocks = _product(cones)
    primal, dual = (lambda: _inside(blocks, rng, False)), (lambda: _inside(blocks, rng, True))
    A = rng.standard_normal((len(primal()), n))
    A = A * (rng.random(A.shape) < rng.uniform(0.3, 1.0))
    G = rng.standard_normal((n, int(rng.integers(1, n + 1)))) * rng.integers(0, 2)
    x, b, c = (rng.standard_normal(size) for size in (n, len(A), n))
    if kind == "infeasible":  # A'y = 0, b'y = -1
        y = dual()
        A, b = A - np.outer(y, y @ A) / (y @ y), b - y * (y @ b + 1) / (y @ y)
    if kind == "unbounded":  # Ax + s = 0, Px = 0, c'x = -1
        A, c = A - np.outer(A @ x + primal(), x) / (x @ x), c - x * (x @ c + 1) / (x @ x)
        G = G - np.outer(x, x @ G) / (x @ x)
    P = G @ G.T
    if kind != "infeasible":
        b = A @ rng.standard_normal(n) + primal()
    if kind != "unbounded":
        c = -P @ rng.standard_normal(n) - A.T @ dual()
    if seed // len(KINDS) % 4 == 3:
        rows = np.repeat(10 ** rng.uniform(-1, 1, len(blocks)), [block.rows for block in blocks])
        columns = 10 ** rng.uniform(-1, 1, n)
        A, P = rows[:, None] * A * columns, columns[:, None] * P * columns
        b, c = 10 ** rng.uniform(-3, 3) * rows * b, 10 ** rng.uniform(-3, 3) * columns * c
    data = {"A": sparse.csc_matrix(A), "b": b, "c": c}
    return Case(data | ({"P": sparse.csc_matrix(P)} if G.any() else {}), cones, kind)


def in_blocks(start: int, stop: int) -> list[Any]:
    """These seeds as pytest parameters: a few for every run, and blocks that are slow."""
    edges = [start, *range(start + 8, stop, 48), stop]
    parts = list(map(range, edges, edges[1:]))
    return parts[:1] + [pytest.param(part, marks=pytest.mark.slow) for part in parts[1:]]


def wheel(case: Case, **settings: Any) -> Answer:
    """The scs package, to 1e-7 unless told otherwise."""
    data = {**case.data, "P": sparse.triu(case.data["P"], format="csc")} if "P" in case.data else case.data
    found = scs.SCS(data, case.cones, **({"eps_abs": 1e-7, "eps_rel": 1e-7, "verbose": False} | settings)).solve()
    status = {1: "solved", -2: "infeasible", -1: "unbounded"}.get(found["info"]["status_val"], "unsure")
    return Answer(status, found["x"], found["y"], found["s"], found["info"]["iter"])  # type: ignore[arg-type]


def clarabel(case: Case) -> Answer:
    """Clarabel, an interior point method, at its defaults.

    Its cones are images of ours: with T s' in its product for s' in ours, it solves TAx + s = Tb, and y = T'y.
    """
    A, b, c = (case.data[name] for name in "Abc")
    P = sparse.triu(case.data.get("P", sparse.csc_matrix((len(c), len(c)))), format="csc")
    parts, cones = zip(*map(_to_clarabel, _product(case.cones)), strict=True)
    T = sparse.block_diag(parts, format="csc")
    settings = interior_point.DefaultSettings()
    settings.verbose = False
    found = interior_point.DefaultSolver(P, c, (T @ A).tocsc(), T @ b, list(cones), settings).solve()
    statuses = {"Solved": "solved", "PrimalInfeasible": "infeasible", "DualInfeasible": "unbounded"}
    x = np.array(found.x)
    status = statuses.get(str(found.status), "unsure")
    return Answer(status, x, T.T @ np.array(found.z), b - A @ x, found.iterations)  # type: ignore[arg-type]


def _cones(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """A random product with at least one cone that is not zero, of at most 60 rows."""

    def some(low: int, high: int, count: int) -> list[int]:
        return rng.integers(low, high + 1, int(rng.integers(1, count + 1))).tolist()

    choices: dict[str, Callable[[], dict[str, Any]]] = {
        "z": lambda: {"z": int(rng.integers(1, max(n // 3, 1) + 1))},
        "l": lambda: {"l": int(rng.integers(1, 11))},
        "b": lambda: _bounds(rng),
        "q": lambda: {"q": some(1, 5, 2)},
        "s": lambda: {"s": some(1, 3, 2)},
        "ep": lambda: {"ep": int(rng.integers(1, 3))},
        "ed": lambda: {"ed": int(rng.integers(1, 3))},
        "p": lambda: {"p": (rng.uniform(0.1, 0.9, 2) * rng.choice([-1, 1], 2))[: rng.integers(1, 3)].tolist()},
    }
    chosen = [key for key in choices if rng.random() < 0.4]
    if set(chosen) <= {"z"}:
        chosen.append("l")
    return {key: value for choice in chosen for key, value in choices[choice]().items()}


def _bounds(rng: np.random.Generator) -> dict[str, Any]:
    """A box; some of its sides are missing."""
    count = int(rng.integers(1, 5))
    lower = rng.standard_normal(count)
    upper = lower + rng.uniform(0.2, 2, count)
    open_ = rng.random(count)
    upper, lower = np.where(open_ < 0.15, np.inf, upper), np.where(open_ > 0.85, -np.inf, lower)
    return {"bl": lower.tolist(), "bu": upper.tolist()}


def _product(cones: dict[str, Any]) -> list[Block]:
    """The cones in SCS's row order."""
    blocks = [Block(key, cones[key]) for key in "zl" if key in cones]
    if "bu" in cones:
        blocks.append(Block("b", 1 + len(cones["bu"]), np.stack([cones["bl"], cones["bu"]], 1)))
    blocks += [Block("q", size) for size in cones.get("q", [])]
    blocks += [Block("s", order * (order + 1) // 2, order) for order in cones.get("s", [])]
    blocks += [Block(key, 3) for key in ("ep", "ed") for _ in range(cones.get(key, 0))]
    return blocks + [Block("p", 3, exponent) for exponent in cones.get("p", [])]


def _inside(blocks: list[Block], rng: np.random.Generator, dual: bool) -> np.ndarray:
    """(m,) a point in the (relative) interior of the product or of its dual."""
    return np.concatenate([_inside_block(block, rng, dual) for block in blocks])


def _inside_block(block: Block, rng: np.random.Generator, dual: bool) -> np.ndarray:
    key, rows, option = block
    margin = 0.1 + rng.exponential()
    if key == "z":
        return rng.standard_normal(rows) if dual else np.zeros(rows)
    if key == "l":
        return 0.1 + rng.exponential(size=rows)
    if key == "q":
        v = rng.standard_normal(rows - 1)
        return np.concatenate([[linalg.norm(v) + margin], v])
    if key == "s":
        G = rng.standard_normal((option, option))
        return _svec(G @ G.T / option + 0.1 * np.eye(option))
    if key == "b":
        return _inside_box(option[:, 0], option[:, 1], rng, margin, dual)
    first, second = np.exp(0.5 * rng.standard_normal(2))
    ratio = rng.uniform(-2, 2)
    if key == "p":  # x^a y^(1-a) > |z|; the dual has x/a, y/(1-a) in place of x, y
        a = abs(option)
        weights = (a, 1 - a) if dual != (option < 0) else (1, 1)
        return np.array([weights[0] * first, weights[1] * second, 0.4 * ratio * first**a * second ** (1 - a)])
    if dual != (key == "ed"):  # -u e^(v/u) < e w
        return np.array([-first, -first * ratio, first * np.exp(ratio - 1) + margin])
    return np.array([first * ratio, first, first * np.exp(ratio) + margin])  # y e^(x/y) < z


def _inside_box(
    lower: np.ndarray, upper: np.ndarray, rng: np.random.Generator, margin: float, dual: bool
) -> np.ndarray:
    """t l < s < t u; the dual is t > sum of max(-l y, -u y), where an infinite side decides the sign of y."""
    if dual:
        y = rng.standard_normal(len(lower))
        y = np.where(np.isinf(upper), np.abs(y) + 0.1, np.where(np.isinf(lower), -np.abs(y) - 0.1, y))
        side = np.where(y > 0, lower, upper)
        return np.concatenate([[margin - side @ y], y])
    low = np.where(np.isinf(lower), upper - 1, lower)
    high = np.where(np.isinf(upper), lower + 1, upper)
    return margin * np.concatenate([[1], low + rng.uniform(0.1, 0.9, len(low)) * (high - low)])


def _svec(matrix: np.ndarray) -> np.ndarray:
    """SCS's vector of a symmetric matrix: the lower triangle, column by column, off the diagonal times sqrt(2)."""
    columns, rows = np.triu_indices(len(matrix))
    return matrix[rows, columns] * np.where(rows == columns, 1, np.sqrt(2))


def _to_clarabel(block: Block) -> tuple[np.ndarray, Any]:
    """(T, a cone of Clarabel's): a block of ours holds s exactly if Clarabel's holds T s."""
    key, rows, option = block
    identity = np.eye(rows)
    if key == "z":
        return identity, interior_point.ZeroConeT(rows)
    if key == "l" or (key == "q" and rows == 1):
        return identity, interior_point.NonnegativeConeT(rows)
    if key == "q":
        return identity, interior_point.SecondOrderConeT(rows)
    if key == "s":  # the upper triangle, column by column, is the lower one, row by row
        columns, lower_rows = np.triu_indices(option)
        return identity[np.lexsort((columns, lower_rows))], interior_point.PSDTriangleConeT(option)
    if key == "b":  # t >= 0, s - t l >= 0, t u - s >= 0
        below, above = (identity[1:][np.isfinite(side)] for side in option.T)
        below[:, 0], above[:, 0] = (-side[np.isfinite(side)] for side in option.T)
        T = np.concatenate([identity[:1], below, -above])
        return T, interior_point.NonnegativeConeT(len(T))
    if key == "p":
        a = abs(option)
        return np.diag([1 / a, 1 / (1 - a), 1]) if option < 0 else identity, interior_point.PowerConeT(a)
    swap = np.array([[1.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # (u - v, -u, w) is in the exponential cone
    return swap if key == "ed" else identity, interior_point.ExponentialConeT()
