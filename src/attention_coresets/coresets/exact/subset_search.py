"""Searches for the best subset of one size: proposals from the demands so far, answers from the adversary."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from attention_coresets.adversary.ascent import ascend
from attention_coresets.adversary.enclosure import branch_and_bound
from attention_coresets.attention import Cache, Coreset
from attention_coresets.coresets.exact.demands import Demands, swaps
from attention_coresets.coresets.exact.programs import choose

ABSOLUTE = 1e-5  # of the values' radius: errors this close to the least count as equal, however small they are
_ASKED = 4  # rows that a refused weighting adds at most
_ROUNDS = 20  # of swaps and worst queries before the first proof

Subset = Int[np.ndarray, "m"]
Tokens = Bool[np.ndarray, "n"]
Weights = Float[np.ndarray, "n"]


@dataclass(frozen=True)
class Certified:
    """A coreset of one head and an interval that holds its worst-case error: lower is attained, upper is proven."""

    coreset: Coreset
    lower: float
    upper: float


class SubsetSearch:
    """Searches subsets of `size` tokens of one head, weighted by `unit` or, in the model "free", as is best for each.

    `demands`, of values of radius about 1, holds what earlier searches on the cache have found, and gains what this one
    finds. Raises RuntimeError once `seconds` are over.
    """

    def __init__(self, demands: Demands, size: int, unit: Weights, model: str, tolerance: float, seconds: float):
        self.demands, self.size, self.unit, self.model = demands, size, unit, model
        self.cache = Cache(torch.from_numpy(demands.keys), torch.from_numpy(demands.values))
        self.tolerance, self.seconds, self.end = tolerance, seconds, time.monotonic() + seconds
        self.rng = np.random.default_rng(0)
        self.refused: Subset | None = None  # the last one
        self.barred = np.zeros((0, len(unit)), dtype=bool)  # sets with no subset of the error asked for

    def best(self, starts: list[Subset]) -> Certified:
        """Finds the least error, to within `accuracy`.

        It takes the best of `starts` after swaps, then asks for less until no subset is left.
        """
        best = self._settle(self._first(starts), np.inf)
        assert best is not None  # nothing errs by more than infinity
        # asked for a little less each time; the answer None is the proof
        while (goal := best.upper - self.accuracy(best.upper)) > 0:
            found = self.within(goal)
            if found is None:
                break
            best = found
        return best

    def within(self, epsilon: float) -> Certified | None:
        """Finds a subset with upper <= epsilon + accuracy / 2; None where HiGHS proves that none has error <= epsilon.

        A later call must ask for a smaller epsilon, for what is barred stays barred.
        """
        while (subset := self._propose(epsilon)) is not None:
            found = self._settle(subset, epsilon)
            if found is not None:
                return found
            self.refused = subset
        return None

    def accuracy(self, error: float) -> float:
        """Returns how far above the least an error may be that counts as the least."""
        return max(self.tolerance * error, ABSOLUTE)

    def _propose(self, epsilon: float) -> Subset | None:
        """Finds a subset that meets every row: by swaps from the one refused last, for a proof is dearer."""
        if self.refused is not None:
            near = self._attaining if self.model == "free" else self._below
            # a swap that meets all rows costs far less than a mixed-integer program
            subset = near(self.refused, epsilon)
            if subset is not None:
                return subset
        rows = self.demands.rows(epsilon, self.unit)
        try:
            return choose(rows, self.size, self.model == "free", self.barred, self._left())
        except TimeoutError:
            raise self._late() from None

    def _below(self, start: Subset, epsilon: float) -> Subset | None:
        kept, error = self.demands.swapped(self._mask(start), self.unit)
        return np.flatnonzero(kept) if error <= epsilon and self._open(kept[None]).all() else None

    def _attaining(self, start: Subset, epsilon: float) -> Subset | None:
        trials = self.rng.permutation(swaps(self._mask(start)))
        while len(trials := trials[self._open(trials)]) > 0:
            # each failure bars a set, which takes many of the other trials with it
            subset = np.flatnonzero(trials[0])
            barred = self.demands.best_weights(subset, self.unit, epsilon).barred
            if barred is None:
                return subset
            self._bar(barred)
        return None

    def _settle(self, subset: Subset, epsilon: float) -> Certified | None:
        """Certifies the subset with its weights; returns None, and bars it, where it errs by more than epsilon."""
        if self.model == "free":
            return self._settle_free(subset, epsilon)
        found = self._answer(self._mask(subset) * self.unit, epsilon)
        if found is None:
            self._bar(self._mask(subset))
        return found

    def _settle_free(self, subset: Subset, epsilon: float) -> Certified | None:
        """Fits weights by cutting planes: the best for the rows so far, then a row where they err by more than that."""
        # rows from here on serve this subset; those that do not bind in the end are dropped again
        first = len(self.demands.mass)
        while True:
            best = self.demands.best_weights(subset, self.unit, epsilon)
            if best.barred is not None:
                self._bar(best.barred)
                found = None
                break
            found = self._answer(best.weights, best.value + self.accuracy(best.value) / 8)
            if found is not None:
                break
            self._left()
        self.demands.forget(first, best.binding)
        return found

    def _answer(self, weights: Weights, epsilon: float) -> Certified | None:
        """Certifies a weighting with lower <= epsilon; None where it errs by more. The bank and the rows grow."""
        coreset = self._coreset(weights)
        # the cheapest answer first: the bank, then an ascent, then branch and bound
        if self.demands.errors(weights[None]).max() > epsilon:
            self.demands.ask(weights, epsilon, _ASKED)
            return None
        error = self._ascend(weights, epsilon)
        if error > epsilon:
            return None
        gap = self.accuracy(error) / 8
        box = branch_and_bound(self.cache, coreset, self.demands.rho, gap=gap, seconds=self._left())
        # its query joins the bank even where it certifies: later subsets may err there
        self._add(box.query, weights, epsilon)
        if box.lower > epsilon:
            return None
        # branch and bound ran out of nodes or seconds, and its interval is too wide to decide
        if box.gap > 2 * gap:
            raise self._late()
        return Certified(coreset, float(box.lower), float(box.upper))

    def _ascend(self, weights: Weights, epsilon: float) -> float:
        """Returns the error at the worst query that the ascent finds, which joins the bank."""
        worst = ascend(self.cache, self._coreset(weights), self.demands.rho, restarts=16, steps=30, polish=40)
        self._add(worst.query, weights, epsilon)
        return float(worst.error)

    def _add(self, query: torch.Tensor, weights: Weights, epsilon: float) -> None:
        self.demands.add_queries(query.numpy()[None])
        self.demands.ask(weights, epsilon, _ASKED)

    def _coreset(self, weights: Weights) -> Coreset:
        kept = np.flatnonzero(weights)
        log_weights = None if self.model == "unweighted" else torch.from_numpy(np.log(weights[kept]))
        return Coreset(torch.from_numpy(kept), log_weights)

    def _first(self, starts: list[Subset]) -> Subset:
        """Returns the best subset that swaps make of `starts`; each round's best adds its worst query to the bank."""
        pool = [self._mask(subset) for subset in starts]
        best = pool[0]
        for _ in range(_ROUNDS):
            swapped = [self.demands.swapped(kept, self.unit) for kept in pool]
            pool = [kept for kept, _ in swapped]
            best, error = min(swapped, key=lambda pair: pair[1])
            if self._ascend(best * self.unit, error) <= error + self.accuracy(error) / 8:
                break
        return np.flatnonzero(best)

    def _mask(self, subset: Subset) -> Tokens:
        mask = np.zeros(len(self.unit), dtype=bool)
        mask[subset] = True
        return mask

    def _bar(self, tokens: Tokens) -> None:
        # barred sets inside the new one say nothing more
        implied = ~(self.barred & ~tokens).any(axis=1)
        self.barred = np.concatenate([self.barred[~implied], tokens[None]])

    def _open(self, trials: Bool[np.ndarray, "k n"]) -> Bool[np.ndarray, "k"]:
        """Tells which of the sets lie in no barred one."""
        return np.all((trials[:, None] & ~self.barred).any(axis=-1), axis=-1)

    def _left(self) -> float:
        left = self.end - time.monotonic()
        if left <= 0:
            raise self._late()
        return left

    def _late(self) -> RuntimeError:
        return RuntimeError(
            f"the {self.model} optimum at size {self.size} of {len(self.unit)} tokens is not proven within "
            f"{self.seconds:g} s or branch and bound's nodes; allow more seconds, a larger tolerance or fewer tokens"
        )
