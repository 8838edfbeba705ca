"""Slow, obvious references in NumPy, written apart from the package, that the tests hold it against."""

import itertools
import math

import numpy as np


def attention(query, keys, values, log_weights=None):
    """One query, token by token."""
    top, bottom = np.zeros(values.shape[-1]), 0.0
    for i in range(len(keys)):
        weight = math.exp(float(query @ keys[i]) + (0.0 if log_weights is None else float(log_weights[i])))
        top, bottom = top + weight * values[i], bottom + weight
    return top / bottom


def error(query, keys, values, indices, log_weights=None):
    """|Attn - Attn_coreset| at one query."""
    return np.linalg.norm(
        attention(query, keys, values) - attention(query, keys[indices], values[indices], log_weights)
    )


def softmax(logits):
    """Softmax along the last axis."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def walk(gram, x, choose, ridge, exact):
    """The Gram-Schmidt walk with a dense KKT solve each step; ``choose(step, probability)`` says whether to go up.

    Returns the end +-1 and the probability of the path taken.
    """
    x, alive = np.array(x, dtype=float), np.abs(x) < 1 - 1e-10
    level = np.diag(gram)[alive].mean() if alive.any() else 1.0
    regular = gram + ridge * level * np.eye(len(x))
    likelihood, step = 1.0, 0
    while alive.any() and not (exact and alive.sum() == 1):
        u = direction(regular, np.flatnonzero(alive), exact)
        up, down = reach(x, u), reach(x, -u)
        chance = down / (up + down)
        goes_up = choose(step, chance)
        likelihood *= chance if goes_up else 1 - chance
        x = x + (up if goes_up else -down) * u
        alive &= np.abs(x) < 1 - 1e-10
        step += 1
    return np.sign(x), likelihood


def direction(gram, alive, exact):
    """Minimise u^T gram u over u supported on `alive` with u = 1 at its first index, and sum u = 0 if exact."""
    k, u = len(alive), np.zeros(len(gram))
    rows = [np.eye(k)[0]] + ([np.ones(k)] if exact else [])
    a = np.array(rows)
    kkt = np.block([[gram[np.ix_(alive, alive)], a.T], [a, np.zeros((len(rows), len(rows)))]])
    target = np.concatenate([np.zeros(k), [1.0], [0.0] * (len(rows) - 1)])
    u[alive] = np.linalg.solve(kkt, target)[:k]
    return u


def reach(x, u):
    """The largest step along u that keeps x in [-1, 1]^n."""
    limits = [(np.sign(u[i]) - x[i]) / u[i] for i in range(len(x)) if abs(u[i]) > 1e-14]
    return max(0.0, min(limits))


def enumerate_walk(gram, x, ridge, exact):
    """Every end of the walk with its probability: array of ends ``[paths, n]`` and their probabilities ``[paths]``."""
    found = {}
    for choices in itertools.product((True, False), repeat=len(x)):
        end, likelihood = walk(gram, x, lambda step, _, c=choices: c[step], ridge, exact)
        found[choices] = (end, likelihood)
    # a walk of fewer than n steps meets each of its paths once for every value of the choices it never made
    steps = {c: _steps(gram, x, c, ridge, exact) for c in found}
    ends = np.array([end for end, _ in found.values()])
    return ends, np.array([p / 2 ** (len(x) - steps[c]) for c, (_, p) in found.items()])


def _steps(gram, x, choices, ridge, exact):
    used = [0]

    def choose(step, _):
        used[0] = step + 1
        return choices[step]

    walk(gram, x, choose, ridge, exact)
    return used[0]
