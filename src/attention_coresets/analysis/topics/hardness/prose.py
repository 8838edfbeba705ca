"""A sentence with numbers on caches sought to be hard."""

from attention_coresets.analysis.parts.markdown import number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column
from attention_coresets.analysis.topics.hardness.measures import BEST, searches


def largest(results: Results) -> str:
    """The largest constants of a best tilted subset on all caches found."""
    rows = searches(results)
    rows = rows.loc[rows["arm"] == BEST]
    if rows.empty:
        return ""
    own, plain = (number(float(column(rows, f"constant_{name}").max())) for name in ("own", "rho"))
    return (
        f"**The search for hard caches** (n ≤ {rows['n'].max()}, all subsets tried): on the caches that {len(rows)}"
        f" searches found the best tilted subset has m·err/(√d e^(ρσ)) of at most {own}; with e^ρ in place of e^(ρσ),"
        f" of at most {plain}."
    )
