"""The tilted Gram-Schmidt walk against the best other arm of the ablation."""

from attention_coresets.analysis.parts.arm_names import axis_of
from attention_coresets.analysis.parts.measured import Measure, Measured
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import paired_ratio
from attention_coresets.analysis.stats.frames import distinct, groups
from attention_coresets.coresets.arms import OWN, REFINEMENT


def against_best(arm: str) -> Measure:
    """Error of `arm` over that of the best other arm of the ablation that is not refined afterwards, family by family.

    The best is picked by the same ratio, after the fact: that favours the others, if anything.
    """

    def measure(results: Results) -> list[Measured]:
        parts = []
        for names, rows in groups(results.rows("ablation"), ["cache"]):
            others = [name for name in distinct(rows, "arm") if name != arm and axis_of(name) not in (REFINEMENT, OWN)]
            ratios = {other: paired_ratio(rows, arm, other) for other in others}
            known = {other: ratio for other, ratio in ratios.items() if ratio.caches}
            if known:
                best = max(known, key=lambda other, ratios=known: ratios[other].value)
                parts.append(Measured(f"{names['cache']}, against {best}", known[best]))
        return parts

    return measure
