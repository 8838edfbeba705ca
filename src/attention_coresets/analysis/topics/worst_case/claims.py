"""No two numbers on one worst case contradict each other, and ceilings are near."""

from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.worst_case import measures as worst
from attention_coresets.analysis.topics.worst_case.tolerances import BANDS


def _ceiling(rho: float, band: str) -> Claim:
    statement = f"Kernel certificate over ascent, n = 1024, d = 8, m = 256, tilted walk, ρ = {rho:g}"
    families = ("sphere", "cap_outliers")
    measure = worst.ceiling_factor(families, "walk_tilted", n=1024, d=8, size=256, rho=rho)
    return Claim(f"ceiling_rho_{rho:g}", statement, "tilted", worst.JUDGED, BANDS[band], measure)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "certificate",
        "No ceiling is below a query found, and the ascent ends within the gap of branch and bound: coresets of which"
        " that is not so, over all small caches",
        "tilted, unweighted",
        worst.SMALL,
        BANDS["no_contradiction"],
        worst.contradictions([worst.SMALL]),
    ),
    Claim(
        "certificate_large",
        "The same on larger caches of every family, d and ρ tried",
        "tilted, unweighted",
        worst.JUDGED,
        BANDS["no_contradiction"],
        worst.contradictions([worst.JUDGED]),
    ),
    *(_ceiling(rho, band) for rho, band in ((1.0, "ceiling_one"), (2.0, "ceiling_two"))),
)
