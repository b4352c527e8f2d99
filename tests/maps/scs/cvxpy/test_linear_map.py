"""Sparse affine maps of a batch: values, derivatives, transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from maps.scs.cvxpy import linear_map
from maps.scs.cvxpy.linear_map import LinearMap


def matrix(seed: int, rows: int, columns: int, density: float) -> sparse.csr_array:
    return sparse.random_array((rows, columns), density=density, rng=np.random.default_rng(seed), format="csr")


@given(
    st.integers(0, 2**16), st.integers(0, 6), st.integers(0, 6), st.integers(1, 9), st.sampled_from([0, 0.2, 0.6, 1])
)
def test_it_is_the_dense_product(seed: int, rows: int, columns: int, batch: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    M, t, x = matrix(seed, rows, columns, density), rng.standard_normal(rows), rng.standard_normal((batch, columns))
    cut = columns // 2
    found = LinearMap(M, t)(torch.from_numpy(x[:, :cut]), torch.from_numpy(x[:, cut:]))
    assert np.allclose(found.numpy(), x @ M.toarray().T + t, rtol=1e-14, atol=1e-14)


def test_a_batch_larger_than_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    M, x = matrix(0, 5, 4, 0.6), torch.randn(33, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = LinearMap(M)(x)
    monkeypatch.setattr(linear_map, "CACHED", 70)  # seven instances at a time
    assert torch.equal(LinearMap(M)(x), whole)


def test_derivatives_of_every_order() -> None:
    M = LinearMap(matrix(1, 6, 5, 0.5), np.ones(6))
    parts = [torch.randn(3, k, dtype=torch.float64, requires_grad=True) for k in (2, 3)]
    assert torch.autograd.gradcheck(M, parts)
    assert torch.autograd.gradgradcheck(lambda *p: M(*p).sin(), parts)


def test_vmap_and_jacrev() -> None:
    M = LinearMap(matrix(2, 6, 5, 0.5), np.arange(6.0))
    x, shared = torch.randn(4, 3, 2, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    mapped = torch.func.vmap(M, in_dims=(0, None))(x, shared)
    assert torch.equal(mapped, torch.stack([M(one, shared) for one in x]))
    jacobian = torch.func.jacrev(lambda row: M(row[None])[0])(torch.zeros(5, dtype=torch.float64))
    assert torch.equal(jacobian, torch.from_numpy(M.matrix.toarray()))


def test_dtype_is_kept_and_a_bad_row_stays_alone() -> None:
    M = LinearMap(matrix(3, 6, 5, 0.5), np.ones(6))
    x = torch.randn(3, 5)
    assert M(x).dtype == torch.float32
    spoilt = x.index_fill(0, torch.tensor([1]), torch.nan)
    assert torch.equal(M(spoilt)[[0, 2]], M(x)[[0, 2]])
