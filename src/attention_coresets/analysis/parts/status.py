"""The rule that turns an estimate and a tolerance into one of the study's verdicts."""

import math
from collections.abc import Iterable

from attention_coresets.analysis.parts.band import Band
from attention_coresets.analysis.parts.block import BLOCKS, Block
from attention_coresets.analysis.parts.measured import Measured

CONSISTENT, INCONCLUSIVE = "consistent", "inconclusive"
EASIER, DESCRIPTIVE = "easier than the bound", "descriptive"  # of benign families
NOT_FITTED, NOT_RUN = "not fitted", "not run"
BEST, WORST = (tuple(dict.fromkeys(getattr(block, end) for block in BLOCKS)) for end in ("best", "worst"))
ORDER = (*BEST, EASIER, DESCRIPTIVE, CONSISTENT, INCONCLUSIVE, NOT_FITTED, *WORST)  # best first
WIDTH = 1e-12  # of an interval, relative to the value, up to which nothing varied between the units but rounding


def status(part: Measured, band: Band, block: Block, claims: int) -> str:
    """The word for one estimate of a claim that is one of `claims` judged in its block.

    [low, high] is the 95 % interval, *wide* the simultaneous one (`Estimate.simultaneous`). A word that speaks for the
    claim is judged by the wide one, a word against it by the 95 % interval, so that the correction never helps a claim:

    not fitted: there is no interval, or nothing varied. descriptive: the band excludes nothing, or the block gives no
    verdict; easier than the bound: there, wide lies inside the bound. contradicted (`block.worst`): [low, high] misses
    the band. inconclusive: wide contains a rival value. reproduced (`block.best`): wide lies in the band, and
    [low, high] contains the predicted value where there is one. consistent: what is left.
    """
    found = part.estimate
    if not _has_interval(part):
        return NOT_FITTED
    wide = found.simultaneous(claims)
    if not band.decides:
        return DESCRIPTIVE
    if block.descriptive:
        return EASIER if band.low < wide.low and wide.high < band.high else DESCRIPTIVE
    if found.high < band.low or found.low > band.high:
        return block.worst
    if any(wide.low <= rival <= wide.high for rival in band.rivals):
        return INCONCLUSIVE
    predicted = band.predicted is None or found.low <= band.predicted <= found.high
    if band.low <= wide.low and wide.high <= band.high and predicted:
        return block.best
    return CONSISTENT


def _has_interval(part: Measured) -> bool:
    """Whether there is one, of more than no width unless the value is exact."""
    found = part.estimate
    if math.isnan(found.value) or math.isnan(found.low) or math.isnan(found.high):
        return False
    return found.exact or found.high - found.low > WIDTH * max(1.0, abs(found.value))


def overall(parts: Iterable[str]) -> str:
    """A claim about several settings is as good as the worst of them; without any it was not run."""
    return max(parts, key=ORDER.index, default=NOT_RUN)
