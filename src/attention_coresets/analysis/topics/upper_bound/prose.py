"""The sentence on the constant."""

from attention_coresets.analysis.parts.markdown import number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.topics.upper_bound import measures


def constant(results: Results) -> str:
    """The largest constant of a row of the tilted walk, and the largest median of a setting."""
    rows = measures.synthetic_walks(results)
    found = measures.largest_of_all(results)
    if not found:
        return ""
    middle, where = measures.largest_median(rows)
    medians = f"; medians over the caches of one setting reach {number(middle)} ({where})" if where else ""
    return (
        "**The bound's constant**: m·err/(√d e^(ρσ)) of the tilted walk is at most"
        f" {number(found[0].estimate.value)} in every row of every experiment ({found[0].setting};"
        f" {rows['cache'].nunique()} families){medians}."
    )
