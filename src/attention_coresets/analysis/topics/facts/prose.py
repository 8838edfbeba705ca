"""Sentences with numbers on facts that a compressed cache keeps."""

from attention_coresets.analysis.parts.markdown import interval
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import listed
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.topics.facts.measures import FACTS, GEMMA, OURS, mean, told, unweighted


def kept(results: Results, experiment: str = FACTS) -> str:
    """Facts found and divergence of ours, size by size, beside the best arm without weights."""
    rows = results.rows(experiment)
    if OURS not in set(rows["arm"]):
        return ""
    rows, said = told(rows), []
    for size in distinct(rows, "size"):
        here = rows.loc[rows["size"] == size]
        found, kl = mean(here, OURS, "found"), mean(here, OURS, "kl")
        rivals = sorted((float(column(here.loc[here["arm"] == arm], "kl").mean()), arm) for arm in unweighted(here))
        if found is None or kl is None or not rivals:
            return ""
        least, arm = rivals[0]
        said.append(
            f"at 1/{here['n'].max() / size:g} of the cache a share of {interval(found)} of the full cache's facts, with"
            f" a divergence of {interval(kl)} where the least without weights is {least:.3g} (`{arm}`)"
        )
    return f"`{OURS}` keeps {listed(said)}"


def gemma(results: Results) -> str:
    """The same of Gemma 3 270M."""
    return kept(results, GEMMA)
