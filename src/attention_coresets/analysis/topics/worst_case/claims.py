"""No two numbers on one worst case contradict each other, and ceilings are near."""

from attention_coresets.analysis.parts.block import OWN
from attention_coresets.analysis.parts.measured import rows_of
from attention_coresets.analysis.parts.verdict import Check, Claim
from attention_coresets.analysis.topics.worst_case import measures as worst
from attention_coresets.analysis.topics.worst_case.tolerances import BANDS

FAMILIES = ("sphere", "cap_outliers")


def _ceiling(rho: float, band: str) -> Claim:
    return Claim(
        f"ceiling_rho_{rho:g}",
        f"Kernel certificate over the worst error found, n = 1024, d = 8, m = 256, tilted walk, ρ = {rho:g}",
        "tilted",
        worst.JUDGED,
        BANDS[band],
        worst.ceiling_factor(FAMILIES, "walk_tilted", n=1024, d=8, size=256, rho=rho),
        OWN,
        "a proven ceiling this near to the worst error found; the ratio is at least 1",
        f"a family whose median is above {BANDS[band].high:g}",
        rows_of(worst.JUDGED, arm=["walk_tilted"], cache=FAMILIES, d=[8], rho=[rho], size=[256]),
    )


CLAIMS: tuple[Claim, ...] = tuple(_ceiling(rho, band) for rho, band in ((1.0, "ceiling_one"), (2.0, "ceiling_two")))

CHECKS: tuple[Check, ...] = (
    Check(
        "certificate",
        "No ceiling lies below an error that was found, and the ascent ends within the gap of branch and bound:"
        " number of coresets of small caches that violate this",
        worst.SMALL,
        BANDS["no_contradiction"],
        worst.contradictions([worst.SMALL]),
    ),
    Check(
        "certificate_large",
        "The same on larger caches of every family, d and ρ tried",
        worst.JUDGED,
        BANDS["no_contradiction"],
        worst.contradictions([worst.JUDGED]),
    ),
)
