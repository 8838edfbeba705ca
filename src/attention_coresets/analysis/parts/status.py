"""The rule that turns an estimate and a tolerance into one of the study's status words."""

import math
from collections.abc import Iterable

from attention_coresets.analysis.parts.band import Band
from attention_coresets.analysis.stats.estimates import Estimate

REPRODUCED, CONSISTENT, INCONCLUSIVE, CONTRADICTED, NOT_RUN = (
    "reproduced",
    "consistent",
    "inconclusive",
    "contradicted",
    "not run",
)
ORDER = (REPRODUCED, CONSISTENT, INCONCLUSIVE, CONTRADICTED)  # best first


def status(found: Estimate, band: Band) -> str:
    """The word for one estimate; its interval is [low, high].

    inconclusive: there is no interval, or it contains a rival value. contradicted: it misses the band. reproduced: the
    estimate is in the band, and the interval excludes every rival, or lies in the band where there is none.
    consistent: what is left, an interval that reaches out of the band but meets it.
    """
    if math.isnan(found.value) or math.isnan(found.low) or math.isnan(found.high):
        return INCONCLUSIVE
    if found.high < band.low or found.low > band.high:
        return CONTRADICTED
    if any(found.low <= rival <= found.high for rival in band.rivals):
        return INCONCLUSIVE
    within = band.low <= found.low and found.high <= band.high
    if band.low <= found.value <= band.high and (within or band.rivals):
        return REPRODUCED
    return CONSISTENT


def overall(parts: Iterable[str]) -> str:
    """A claim about several settings is as good as the worst of them; without any it was not run."""
    return max(parts, key=ORDER.index, default=NOT_RUN)
