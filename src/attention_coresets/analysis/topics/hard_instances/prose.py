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
        f"**Lower bound** (signed clusters): the least error of {rules} distinct constructions is"
        f" {number(least[0].estimate.value)} times the bound proven for their own weights and, for m ≤ n/2,"
        f" {number(equal[0].estimate.value)} times A√(d/2), a weaker bound, for equal cluster weights. At"
        f" m = n/2 the best arm, picked on these rows, errs by {span(best)} times A√(d/2)."
    )
