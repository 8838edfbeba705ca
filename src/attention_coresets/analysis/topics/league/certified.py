"""Coresets made for a small certificate against all others: cache by cache, and the parts of the rule left out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.markdown import interval, table
from attention_coresets.analysis.parts.measured import Measure, Measured, setting
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import LEAST as FEWEST
from attention_coresets.analysis.stats.estimates import NOTHING, Estimate, clustered_mean
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.league.measures import families_of

EXPERIMENT = "certified"
COMPARED = "ablation"  # where most arms of the league have certificates: it computes none itself
OURS, START = "certificate_free", "walk_free_kernel_swaps"  # the arm, and what its rounds begin from
CERTIFICATE, ERROR = "certificate", "error"
LEAST = 1e-6  # where some arm errs less, its coreset is as good as exact, and certificates are the rounding of moments
_CACHE = ["cache", "n", "d", "seed", "head"]  # what names a cache
_SETTING = ["rho", "size"]  # that it is met at


def _columns(rows: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The quantity, a row for each cache, rho and size that counts, a column for each arm."""
    found, errors = (rows.pivot_table(name, [*_CACHE, *_SETTING], "arm") for name in (quantity, ERROR))
    return found.loc[errors.min(axis=1).reindex(found.index) > LEAST]


def over_best(rows: pd.DataFrame, quantity: str, arm: str, others: Sequence[str] = ()) -> pd.DataFrame:
    """log_ratio of the arm's quantity to the least of the others', row by row: all other arms but parts of ours."""
    found = _columns(rows, quantity)
    return _against(found, arm, list(others) or [str(name) for name in found if not str(name).startswith(OURS)])


def _against(found: pd.DataFrame, arm: str, wanted: list[str]) -> pd.DataFrame:
    if arm not in found or not set(wanted) & set(found):
        return pd.DataFrame(columns=[*_CACHE, *_SETTING, "other", "log_ratio"])
    both = found.loc[found[arm].notna() & found[wanted].notna().all(axis=1)]
    log_ratio = np.log(column(both, arm) / both[wanted].min(axis=1).to_numpy(dtype=float))
    names = both[wanted].idxmin(axis=1).to_numpy() if len(both) else []
    return both.index.to_frame(index=False).assign(other=names, log_ratio=log_ratio)


def mean_ratio(pairs: pd.DataFrame) -> Estimate:
    """The geometric mean over rows; the rows of one cache are resampled together."""
    return clustered_mean(column(pairs, "log_ratio"), pairs.groupby(_CACHE).ngroup().to_numpy()).exp()


def ratio(quantity: str, others: Sequence[str] = (), by: Sequence[str] = ()) -> Measure:
    """Geometric mean of our arm's quantity over the best other's of each cache, in each group of the columns `by` that
    has caches enough for an interval."""

    def measure(results: Results) -> list[Measured]:
        pairs = over_best(results.rows(EXPERIMENT), quantity, OURS, others)
        if pairs.empty:
            return []
        if not by:
            return [Measured(f"{len(pairs)} rows of {families_of(pairs)}", mean_ratio(pairs))]
        found = [Measured(setting(names, "cache"), mean_ratio(group)) for names, group in groups(pairs, by)]
        return [part for part in found if part.estimate.caches >= FEWEST]

    return measure


def over_reference(results: Results, arms: Sequence[str], reference: str, experiment: str = COMPARED) -> list[Estimate]:
    """Geometric mean of each arm's certificate over the reference's on the caches of one experiment, so that all arms
    are compared on the same; NOTHING of an arm that it lacks."""
    rows = results.rows(experiment)
    found = _columns(rows.loc[rows[CERTIFICATE].notna()], CERTIFICATE)
    pairs = [_against(found, arm, [reference]) for arm in arms]
    return [mean_ratio(one) if len(one) else NOTHING for one in pairs]


def section(results: Results) -> str:
    """Ours against the best other by family and rho, then every arm against ours."""
    rows = results.rows(EXPERIMENT)
    parts = (_by_family(rows), _by_arm(rows))
    return "\n\n".join(text for text in parts if text)


def _by_family(rows: pd.DataFrame) -> str:
    pairs, errors = over_best(rows, CERTIFICATE, OURS), over_best(rows, ERROR, OURS, [START])
    if pairs.empty:
        return ""
    lines = []
    for names, group in [*groups(pairs, ["cache", "rho"]), ({}, pairs)]:
        same = errors
        for name, value in names.items():
            same = same.loc[same[name] == value]
        others = ", ".join(f"{other} {count}" for other, count in group["other"].value_counts().items())
        error = interval(mean_ratio(same)) if len(same) else "–"
        lines.append([setting(names, "cache") if names else "all", interval(mean_ratio(group)), error, others])
    head = ["Family", "Certificate / best other's, 95 %", f"Error / {START}'s, 95 %", "Best other, caches"]
    return f"**{OURS} against the other arms, cache by cache**\n\n" + table(head, lines)


def _by_arm(rows: pd.DataFrame) -> str:
    quantities = [_columns(rows, quantity) for quantity in (CERTIFICATE, ERROR)]
    lines = []
    for arm in distinct(rows, "arm"):
        found = [_against(columns, arm, [OURS]) for columns in quantities]
        lines.append([model_of(rows, arm), *(interval(mean_ratio(pairs)) if len(pairs) else "–" for pairs in found)])
    head = [ARM, f"Certificate / {OURS}'s, 95 %", f"Error / {OURS}'s, 95 %"]
    return "**Every arm, and ours with a part left out**\n\n" + table(head, lines)
