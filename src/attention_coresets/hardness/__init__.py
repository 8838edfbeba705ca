"""Caches sought to be hard: keys and values moved uphill on the error of the coresets that answer them.

`best_of_all` finds the best subset of a tiny cache, over all of them. `search_hard_cache` plays answers to a cache, its
best subsets (`BestSubsets`) or a construction's draws (`Draws`), against gradient steps of the cache.
"""

from attention_coresets.hardness.all_subsets import LARGEST_N, BestSubset, best_of_all
from attention_coresets.hardness.answers import BestSubsets, Draws
from attention_coresets.hardness.rate import OBJECTIVES, Rate, weighting
from attention_coresets.hardness.search import Effort, search_hard_cache

__all__ = [
    "LARGEST_N",
    "OBJECTIVES",
    "BestSubset",
    "BestSubsets",
    "Draws",
    "Effort",
    "Rate",
    "best_of_all",
    "search_hard_cache",
    "weighting",
]
