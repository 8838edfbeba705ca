"""The in-place inverse against NumPy's, for sizes on and off the tile."""

import numpy as np
import pytest
import torch

from attention_coresets.coresets.walks.spd_inverse import invert_lower_


@pytest.mark.parametrize("n", [1, 2, 7, 16, 33, 130, 141])
@pytest.mark.parametrize("tile", [1, 8, 11, 32, None])
def test_the_lower_triangle_is_numpys_inverse_and_only_it_is_read(n, tile):
    f = np.random.default_rng(n).standard_normal((n, n))
    a = f @ f.T + 0.1 * np.eye(n)
    lower = torch.from_numpy(np.tril(a) + np.triu(np.full((n, n), 7.0), 1))
    assert invert_lower_(lower, tile)
    inverse = np.linalg.inv(a)
    np.testing.assert_allclose(np.tril(lower.numpy()), np.tril(inverse), atol=1e-10 * np.abs(inverse).max())


def test_as_accurate_as_lapack_on_near_duplicates():
    """The residual of a Gram matrix of condition 1e8, within a few times that of Cholesky and inverse."""
    features = np.repeat(np.random.default_rng(0).standard_normal((60, 5)), 5, axis=0)
    a = torch.from_numpy(features @ features.T + 1e-6 * np.eye(300))
    found = a.clone()
    assert invert_lower_(found, 32)
    found = found.tril() + found.tril(-1).T
    ours, theirs = ((a @ x - torch.eye(300)).norm() for x in (found, torch.cholesky_inverse(torch.linalg.cholesky(a))))
    assert ours < 5 * theirs


@pytest.mark.parametrize("at", [0, 20])
def test_a_matrix_that_is_not_positive_definite_says_so(at):
    a = torch.eye(24).double()
    a[at, at] = -1
    assert not invert_lower_(a, 8)
