"""A sentence with numbers on the lower bound, for the headline."""

from attention_coresets.analysis.parts.markdown import number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import claimed, span
from attention_coresets.analysis.topics.hard_instances.claims import CHECKS, CLAIMS
from attention_coresets.analysis.topics.hard_instances.signed_clusters import distinct_rules, over_floor


def floor(results: Results) -> str:
    """The least error over the bounds, and the best arm over the floor."""
    known = (*CHECKS, *CLAIMS)
    least, equal, best = (claimed(known, results, name) for name in ("floor", "floor_equal", "floor_factor"))
    if not least or not equal or not best:
        return ""
    rules = distinct_rules(over_floor(results))
    return (
        f"**Lower bound** (signed clusters): none of {rules} distinct rules errs by less than"
        f" {number(least[0].estimate.value)} × the bound proven for its own weights, nor, with m ≤ n/2, by less than"
        f" {number(equal[0].estimate.value)} × A√(d/2), the bound for equal cluster weights; the best arm at m = n/2,"
        f" picked on these rows, over A√(d/2): {span(best)}."
    )
