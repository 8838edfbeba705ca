"""Solves linear and mixed-integer programs over the rows that queries demand (demands.py), by HiGHS through scipy."""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from jaxtyping import Bool, Float, Int

_LEAST = 1e-9  # share of a token in a subset's weights: a Coreset's log-weights are finite
_FEASIBLE = 1e-7  # HiGHS's tolerance on a row


@dataclass(frozen=True)
class Weighting:
    """Weights on a subset, 0 elsewhere, the largest error `value` they leave in the rows, and which rows bind.

    barred: None where some weights on the subset reach the epsilon asked for. Otherwise a set of tokens around the
        subset on which none do either.
    """

    weights: Float[np.ndarray, "n"]
    value: float
    binding: Bool[np.ndarray, "r"]
    barred: Bool[np.ndarray, "n"] | None = None


def best_weights(
    excess: Float[np.ndarray, "r n"], mass: Float[np.ndarray, "r n"], subset: Int[np.ndarray, "m"], epsilon: float
) -> Weighting:
    """Finds weights w on `subset`, of sum 1, that minimise the largest <excess, w> / <mass, w> over the rows.

    Dinkelbach's iteration for ratios of linear functions solves a linear program a step: one where epsilon is out of
    reach, else some 3 to 6. Results hold up to HiGHS's tolerance of 1e-7, and a set is barred only where epsilon is
    missed by more.
    """
    share = np.zeros(excess.shape[1])
    share[subset] = 1 / len(subset)
    value = min(epsilon, _largest_ratio(excess, mass, share))
    while True:
        rows = (excess - value * mass) / (mass @ share)[:, None]
        share, dual = _least_excess(rows, subset)
        reached = _largest_ratio(excess, mass, share)
        along = dual @ rows  # a mixture of the rows: where it is above 0 on a set, no weights there satisfy them all
        if value == epsilon and along[subset].min() > _FEASIBLE:
            return Weighting(share, reached, dual > 0, along >= along[subset].min() / 2)
        gain, value = value - reached, reached
        if gain <= _FEASIBLE:
            return Weighting(share, value, dual > 0)


def choose(
    rows: Float[np.ndarray, "r n"], size: int, free: bool, barred: Bool[np.ndarray, "b n"], seconds: float
) -> Int[np.ndarray, "m"] | None:
    """Finds `size` tokens with weights w, 1 each or if `free` any of sum 1, such that rows @ w <= 0; else None.

    No subset of a set in `barred` is chosen. HiGHS proves a None under its tolerances, 1e-6 on integers and 1e-7 on
    rows, each of which should have a largest entry of 1. The tolerances only widen the choice.

    Raises TimeoutError after `seconds`.
    """
    optimize = _scipy_optimize()
    n = rows.shape[1]
    covers = np.concatenate([np.ones((1, n)), ~barred])  # `size` in all, and one at least outside each barred set
    low, high = np.ones(len(covers)), np.full(len(covers), float(size))
    low[0] = size
    if free:  # columns: the weights, then the choice
        none, one = np.zeros((len(rows), n)), np.eye(n)
        above = np.block([[rows, none], [one, -one]])
        equal = np.append(np.ones(n), np.zeros(n))[None]
        covers = np.hstack([np.zeros_like(covers), covers])
        constraints = [optimize.LinearConstraint(above, -np.inf, 0), optimize.LinearConstraint(equal, 1, 1)]
    else:
        constraints = [optimize.LinearConstraint(rows, -np.inf, 0)]
    columns = covers.shape[1]
    result = optimize.milp(
        np.zeros(columns),
        constraints=[*constraints, optimize.LinearConstraint(covers, low, high)],
        integrality=np.arange(columns) >= columns - n,
        bounds=optimize.Bounds(0, 1),
        options={"time_limit": seconds},
    )
    if result.status == 2:
        return None
    if result.status == 1:
        raise TimeoutError
    if result.status != 0:
        raise RuntimeError(f"HiGHS did not solve the program of the subsets: {result.message}")
    return np.sort(np.argsort(-result.x[-n:], kind="stable")[:size])


def _largest_ratio(excess: np.ndarray, mass: np.ndarray, share: np.ndarray) -> float:
    return float(((excess @ share) / (mass @ share)).max())


def _least_excess(rows: np.ndarray, subset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the distribution w on `subset` of least max(rows @ w), and the mixture of rows that proves so."""
    r, m = len(rows), len(subset)
    result = _scipy_optimize().linprog(
        np.append(np.zeros(m), 1.0),
        A_ub=np.column_stack([rows[:, subset], -np.ones(r)]),
        b_ub=np.zeros(r),
        A_eq=np.append(np.ones(m), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, 1)] * m + [(None, None)],
        method="highs",
    )
    if result.status != 0:
        raise RuntimeError(f"HiGHS did not solve the linear program of a subset's weights: {result.message}")
    share = np.zeros(rows.shape[1])
    share[subset] = np.maximum(result.x[:m], _LEAST)
    return share / share.sum(), np.maximum(-result.ineqlin.marginals, 0)


def _scipy_optimize() -> ModuleType:
    """Imports scipy.optimize, which the rest of the core does without."""
    try:
        from scipy import optimize
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the optimum needs scipy: pip install 'attention-coresets[study]'") from error
    return optimize
