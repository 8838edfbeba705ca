"""Sentences with numbers on the sizes that heads need."""

import numpy as np

from attention_coresets.analysis.parts.markdown import interval, number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column
from attention_coresets.analysis.topics.head_sizes.measures import PREDICTORS, SIZE_ALONE, slopes, told
from attention_coresets.analysis.topics.head_sizes.plans import GEMMA, OURS, SIZES


def law(results: Results) -> str:
    """The spread of T, the slopes, and which measure tells the errors best."""
    rows = results.rows(SIZES)
    found, explains = {part.setting: part.estimate for part in slopes(results)}, told(results)
    if not found or not explains:
        return ""
    heads = rows.loc[rows["arm"] == OURS].drop_duplicates("cache_params")
    total = np.quantile(column(heads, "total_sensitivity"), [0, 0.5, 1])
    ordered = sorted(PREDICTORS.values(), key=lambda words: -explains[words].value)
    said = ", ".join(f"{words} {number(explains[words].value)}" for words in (*ordered, SIZE_ALONE))
    return (
        f"over {len(heads)} heads T runs from {number(total[0])} to {number(total[2])} (median {number(total[1])}); the"
        f" size needed grows with T at the slope {interval(found['slope in log T'])} and with 1/ε at"
        f" {interval(found['slope in log 1/ε'])}. Of the variance of log error over heads and sizes these explain, in"
        f" layers unseen: {said}"
    )


def second(results: Results) -> str:
    """The mean T of a head over the tokens of its text, for both models."""
    shares = {}
    for experiment in (GEMMA, SIZES):
        heads = results.rows(experiment).drop_duplicates("cache_params")
        if heads.empty:
            return ""
        shares[experiment] = float((column(heads, "total_sensitivity") / column(heads, "n")).mean())
    return f"{number(shares[GEMMA])} of the tokens in the mean over heads, on SmolLM2-135M {number(shares[SIZES])}"
