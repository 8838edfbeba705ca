"""Sentences with numbers on exact optima."""

from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import claimed, listed, span
from attention_coresets.analysis.stats.frames import distinct
from attention_coresets.analysis.topics.optimum.claims import CLAIMS
from attention_coresets.analysis.topics.optimum.measures import EXPERIMENT


def walk(results: Results) -> str:
    """The tilted walk over the best tilted subset."""
    walk = claimed(CLAIMS, results, "optimum_walk")
    if not walk:
        return ""
    return (
        f"**Exact optimum** (tiny caches): the tilted walk's error is {span(walk)} times that of the best tilted"
        " subset of its size."
    )


def optimum_sizes(results: Results) -> str:
    """The sizes of the caches whose optima were found: "n = 8 and 12"."""
    rows = results.rows(EXPERIMENT)
    return f"n = {listed(distinct(rows, 'n'))}" if len(rows) else ""
