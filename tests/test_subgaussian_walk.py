"""The walk's signs are subgaussian: each step of the lemma's proof (docs/theory.md, Balancing), and the lemma."""

import math

import numpy as np
import pytest
import torch

import oracles
from attention_coresets.coresets.kernel.law import capped_marginals
from attention_coresets.coresets.walks.walk import walk_signs

RIDGE = 1e-4


def h(y, c):
    return ((1 + y) * np.exp(c * (1 - y)) + (1 - y) * np.exp(-c * (1 + y))) / 2


def potential(y, c, s):
    """F of the proof; c = 0 where s = 0."""
    return h(y, c) * np.exp((np.divide(c * c, s, out=np.zeros_like(c), where=s > 0) - c * c) / 2)


def test_a_step_leaves_the_potential_in_the_mean():
    rng = np.random.default_rng(0)
    y, c, s = rng.uniform(-1, 1, 5000), rng.normal(size=5000) * 3, rng.uniform(0.05, 1, 5000)
    up, down = rng.uniform(size=5000) * (1 - y), rng.uniform(size=5000) * (1 + y)
    chance = down / (up + down)
    after = chance * np.exp(up * c) * potential(y + up, c, s)
    after += (1 - chance) * np.exp(-down * c) * potential(y - down, c, s)
    np.testing.assert_allclose(after, potential(y, c, s), rtol=1e-9)


def test_another_direction_does_not_raise_the_potential():
    rng = np.random.default_rng(1)
    n = 400_000
    s = rng.uniform(0, 1, n) * (rng.random(n) < 0.9)
    alpha = np.sqrt((1 - s) * rng.uniform(0, 1, n))
    y, c, beta = rng.uniform(-1, 1, n), rng.normal(size=n) * 2 * np.sqrt(s), rng.normal(size=n) * 2
    ratio = potential(y, c + alpha * beta, s + alpha**2) * np.exp(-(beta**2) / 2) / potential(y, c, s)
    assert ratio.max() <= 1 + 1e-9
    assert ratio.max() > 0.95  # it is near to equality somewhere


def test_the_potential_ends_at_one_or_more():
    c, s = np.linspace(-6, 6, 101), np.full(101, 0.7)
    for y in (-1.0, 1.0):
        assert (potential(y, c, s) >= 1).all()
    np.testing.assert_array_equal(potential(0.3, np.zeros(3), np.zeros(3)), np.ones(3))


def spread(vectors, exact):
    """tau: the largest norm (free sum), or distance (fixed sum), of the rows."""
    if not exact:
        return np.linalg.norm(vectors, axis=1).max()
    return np.linalg.norm(vectors[:, None] - vectors[None], axis=-1).max()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("n", "rank"), [(2, 2), (3, 1), (4, 2), (5, 3), (6, 2), (6, 6)])
def test_the_moment_generating_function_over_every_path(n, rank, exact):
    """No sampling: each path of the reference walk with its probability, random and adverse directions and lengths."""
    rng = np.random.default_rng(100 * n + rank)
    rows = rng.normal(size=(n, rank)) * rng.uniform(0.2, 1, size=(n, 1))
    gram = rows @ rows.T
    x = rng.uniform(-0.9, 0.9, n)
    if exact:
        marginals = capped_marginals(torch.from_numpy(rng.normal(size=(1, n))), n // 2)[0].numpy()
        x = 2 * marginals - 1
    ends, chance = oracles.enumerate_walk(gram, x, RIDGE, exact)
    alive = np.abs(x) < 1 - 1e-10
    level = np.diag(gram)[alive].mean()
    regular = np.hstack([rows, math.sqrt(RIDGE * level) * np.eye(n)])
    tau = spread(regular[alive], exact)
    sums = (ends - x) @ regular / tau  # [paths, rank + n], what the lemma calls subgaussian with constant 1
    v = rng.normal(size=(4000, rank + n)) * np.r_[np.ones(rank), 0.2 * np.ones(n)]
    along = np.linalg.svd(sums * np.sqrt(chance)[:, None], full_matrices=False)[2]
    v = np.concatenate([v, along, -along])
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    for length in (0.1, 0.5, 1, 2, 4):
        moments = chance @ np.exp(length * sums @ v.T)
        assert moments.max() <= math.exp(length**2 / 2) * (1 + 1e-9)


def test_a_fixed_sum_needs_its_root_two():
    """Two orthogonal tokens: the variance along their difference is 2, so that no smaller tau would do."""
    ends, chance = oracles.enumerate_walk(np.eye(2), np.zeros(2), RIDGE, True)
    assert chance @ (ends @ np.array([1, -1]) / math.sqrt(2)) ** 2 == pytest.approx(2)


def test_the_package_walk_over_many_seeds():
    """5,000 walks from fractional marginals: within 4.5 standard errors of the lemma along random directions."""
    walks, n, size = 5_000, 12, 5
    rng = np.random.default_rng(2)
    rows = np.exp(rng.normal(size=(n, 4)))  # no negative products, as those of the balancing kernel
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pi = capped_marginals(torch.from_numpy(rng.normal(size=(1, n))), size)
    signs = walk_signs(
        torch.from_numpy(rows @ rows.T).expand(walks, n, n).clone(),
        (2 * pi - 1).expand(walks, n).clone(),
        torch.from_numpy(rng.random((walks, n))),
        RIDGE,
        place=torch.from_numpy(rng.random((walks, n)).argsort(-1)),
    )
    assert (signs.sum(-1) == size).all()
    v = rng.normal(size=(50, 4))
    moved = (2.0 * signs.double() - 2 * pi).numpy() @ rows
    sums = moved / math.sqrt(2 * (1 + RIDGE)) @ (v / np.linalg.norm(v, axis=1, keepdims=True)).T
    for length in (0.5, 1.0, 2.0):
        moments = np.exp(length * sums)
        error = moments.std(0) / math.sqrt(walks)
        assert (moments.mean(0) <= math.exp(length**2 / 2) + 4.5 * error).all()
