"""Collects what queries demand of a subset's weights: a bank of queries, and linear rows taken from it.

A query q and a unit direction y demand <y, Attn(q) - Attn'(q)> <= epsilon, with Attn' the attention over the subset.
Times the positive denominator of Attn', this is linear in the weights w:

    sum_i w_i exp<q, k_i> (<y, Attn(q) - v_i> - epsilon) <= 0.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from attention_coresets.coresets.exact.programs import Weighting, best_weights

_APART = 0.05  # of rho: queries closer than this to a worse one ask for nearly the same


class Demands:
    """A bank of queries and the rows asked so far, for a cache of keys ``[n, d]`` and values ``[n, dv]``, in float64.

    A query's kernel exp<q, k_i> is scaled to a largest entry of 1. A row is kept in two parts, so that epsilon and the
    tokens' own weights `unit` enter only when it is used.
    """

    def __init__(self, keys: Float[np.ndarray, "n d"], values: Float[np.ndarray, "n dv"], rho: float):
        self.keys, self.values, self.rho = keys, values, rho
        n, d = keys.shape
        self.queries = np.empty((0, d))
        self.kernel = np.empty((0, n))  # [c, n]
        self.moments = np.empty((0, n, values.shape[1]))  # kernel (Attn(q) - v_i), [c, n, dv]
        self.excess, self.mass = np.empty((0, n)), np.empty((0, n))  # <y, moments> and the kernel of each row, [r, n]

    def add_queries(self, queries: Float[np.ndarray, "c d"]) -> None:
        """Puts queries into the bank."""
        logits = queries @ self.keys.T
        # a positive factor leaves what a row demands as it is, and this one keeps exp from overflowing
        kernel = np.exp(logits - logits.max(axis=1, keepdims=True))
        target = kernel @ self.values / kernel.sum(axis=1, keepdims=True)
        moments = kernel[:, :, None] * (target[:, None] - self.values)
        self.queries = np.concatenate([self.queries, queries])
        self.kernel = np.concatenate([self.kernel, kernel])
        self.moments = np.concatenate([self.moments, moments])

    def errors(self, weights: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "k c"]:
        """Measures |Attn - Attn'| of k weightings at every query of the bank."""
        return np.sqrt(np.square(self._differences(weights)).sum(-1))

    def ask(self, weights: Float[np.ndarray, "n"], epsilon: float, count: int) -> None:
        """Adds a row for the bank's worst query, and for up to count - 1 others, some way apart, of error > epsilon."""
        difference = self._differences(weights[None])[0]
        error = np.sqrt(np.square(difference).sum(-1))
        # the worst query, then the worst of those far from it: near ones would give nearly the same row
        left, chosen = error.copy(), []
        while len(chosen) < count and (not chosen or left.max() > epsilon):
            chosen.append(int(left.argmax()))
            close = np.linalg.norm(self.queries - self.queries[chosen[-1]], axis=1) < _APART * self.rho
            left[close] = -1.0
        # the direction in which this weighting errs: of all unit y the one that it violates most
        directions = difference[chosen] / error[chosen, None].clip(1e-300)
        self.excess = np.concatenate([self.excess, np.einsum("cnv,cv->cn", self.moments[chosen], directions)])
        self.mass = np.concatenate([self.mass, self.kernel[chosen]])

    def rows(self, epsilon: float, unit: Float[np.ndarray, "n"]) -> Float[np.ndarray, "r n"]:
        """Returns the rows for weights in multiples of `unit`, each scaled to a largest entry of 1 in size."""
        rows = (self.excess - epsilon * self.mass) * unit
        return rows / np.abs(rows).max(axis=1, keepdims=True).clip(1e-300)

    def best_weights(self, subset: Int[np.ndarray, "m"], unit: Float[np.ndarray, "n"], epsilon: float) -> Weighting:
        """Finds weights on `subset` with the least error in the rows; `unit` sets the scale of each."""
        found = best_weights(self.excess * unit, self.mass * unit, subset, epsilon)
        return Weighting(found.weights * unit, found.value, found.binding, found.barred)

    def forget(self, first: int, kept: Bool[np.ndarray, "r"]) -> None:
        """Drops the rows from number `first` on that are not `kept`; rows newer than `kept` stay."""
        stay = np.ones(len(self.mass), dtype=bool)
        stay[first : len(kept)] = kept[first:]
        self.excess, self.mass = self.excess[stay], self.mass[stay]

    def swapped(self, kept: Bool[np.ndarray, "n"], unit: Float[np.ndarray, "n"]) -> tuple[Bool[np.ndarray, "n"], float]:
        """Swaps tokens of weights `unit` in and out, the best swap each time, while the bank's largest error falls."""
        error = float(self.errors((kept * unit)[None]).max())
        while True:
            trials = swaps(kept)
            errors = self.errors(trials * unit).max(axis=1)
            best = int(errors.argmin())
            # a gain below rounding could go round in circles
            if errors[best] >= error * (1 - 1e-9):
                return kept, error
            kept, error = trials[best], float(errors[best])

    def _differences(self, weights: np.ndarray) -> np.ndarray:
        """Computes Attn - Attn' of k weightings at every query of the bank, [k, c, dv]."""
        n, (count, _, dv) = len(self.keys), self.moments.shape
        top = (weights @ self.moments.transpose(1, 0, 2).reshape(n, -1)).reshape(-1, count, dv)
        return top / (weights @ self.kernel.T)[:, :, None]


def swaps(kept: Bool[np.ndarray, "n"]) -> Bool[np.ndarray, "k n"]:
    """Lists every set that differs from `kept` in one token kept and one dropped."""
    out, into = np.flatnonzero(kept), np.flatnonzero(~kept)
    trials = np.repeat(kept[None], len(out) * len(into), axis=0)
    rows = np.arange(len(trials))
    trials[rows, np.repeat(out, len(into))] = False
    trials[rows, np.tile(into, len(out))] = True
    return trials
