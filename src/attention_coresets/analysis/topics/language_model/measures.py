"""Measures on a language model that runs on coresets of its cache."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.measured import Measure, Measured
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import Estimate, clustered_mean
from attention_coresets.analysis.stats.frames import medians
from attention_coresets.analysis.topics.real_heads.caches import SEGMENT, at_share, met

# Texts, rivals and shares of the cache are those of the real heads, whose topic this one therefore imports.
LANGUAGE = "real_language"


def loses_less(arm: str, rivals: Sequence[str], share: int, name: str = "loss") -> Measure:
    """The loss on coresets of m = n / share, arm less each rival, in nats a token: the mean over segments."""

    def measure(results: Results) -> list[Measured]:
        rows = at_share(results.rows(LANGUAGE), share)
        return [
            Measured(f"less {rival}, m = n/{share}", less(rows, arm, rival, name), unit="segments")
            for rival in met(rows, rivals)
        ]

    return measure


def less(rows: pd.DataFrame, arm: str, rival: str, name: str) -> Estimate:
    """Mean over segments of arm's `name` less the rival's; NaN ends where there are too few of them."""
    found = medians(rows, [*SEGMENT, "arm"], [name])
    left, right = (found.loc[found["arm"] == label].set_index(list(SEGMENT))[name] for label in (arm, rival))
    apart = (left - right).dropna()
    return clustered_mean(apart.to_numpy(), np.arange(len(apart)))
