"""Sentences with numbers on the geometry of real heads: ρ, T, Γ, maps."""

import numpy as np

from attention_coresets.analysis.parts.markdown import number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import between, claimed, listed
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.real_heads.caches import HEADS
from attention_coresets.analysis.topics.real_heads.claims import CLAIMS


def norms(results: Results) -> str:
    """ρ by the norms, medians over heads of each text."""
    found = claimed(CLAIMS, results, "real_rho")
    return between(part.estimate.value for part in found) if found else ""


def log_t(results: Results) -> str:
    """log T of later queries, medians over heads of each text."""
    found = claimed(CLAIMS, results, "real_log_t")
    return between(part.estimate.value for part in found) if found else ""


def rho_range(results: Results) -> str:
    """Least, largest and median ρ of all heads."""
    if results.heads is None:
        return ""
    rho = column(results.heads, "rho_centred")
    return f"{between(rho)} (median {number(float(np.median(rho)))})"


def moved(results: Results) -> str:
    """T of calibration queries where they stood, of later ones, of calibration queries moved."""
    stood, later, here = (_by_text(results, f"total_sensitivity{part}") for part in ("_causal", "_heldout", ""))
    if not stood:
        return ""
    return (
        f"where they stood, the same queries have a total sensitivity T (below) of {stood} in the median over heads,"
        f" later ones of {later}; moved, they have {here}"
    )


def _by_text(results: Results, name: str) -> str:
    """Medians over heads of a column, text by text."""
    if results.heads is None:
        return ""
    return between(float(np.median(column(part, name))) for _, part in groups(results.heads, ["text"]))


def maps(results: Results) -> str:
    """How near the best map of keys and queries is to its bound, and what it and both centres make of ρ."""
    heads = results.heads
    if heads is None or "rho_query_linear_lower" not in heads:
        return ""
    share = column(heads, "rho_query_linear") / column(heads, "rho_centred")
    near = column(heads, "rho_query_linear") / column(heads, "rho_query_linear_lower")
    return (
        f"with both centres certified within {_percent(near.max() - 1)} of the least possible, take ρ down to"
        f" {number(float(np.median(share)))} of what it was, median over heads"
    )


def _percent(share: float) -> str:
    return f"{number(100 * float(share))} %"


def balancing(results: Results) -> str:
    """Γ over T of the same queries."""
    if results.heads is None:
        return ""
    ratio = column(results.heads, "gamma") / column(results.heads, "gamma_sensitivity")
    return f"{number(float(np.median(ratio)))} times T in the median over heads, {number(ratio.max())} times at most"


def ellipsoid(results: Results) -> str:
    """ρσ of the tilted walk's view of the cache, as large as the ellipsoid was asked for."""
    rows = results.rows(HEADS)
    rows = rows.loc[rows["arm"] == "walk_tilted"]
    if rows.empty:
        return ""
    exponent = float(np.median(column(rows, "exponent")))
    return f"{number(exponent)} nats already at {listed(distinct(rows, 'rho'))} times its size"
