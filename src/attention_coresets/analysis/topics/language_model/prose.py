"""Sentences with numbers on a language model that runs on coresets."""

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.markdown import number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import claimed, code, listed, span, tallies
from attention_coresets.analysis.stats.estimates import Estimate
from attention_coresets.analysis.stats.frames import column, distinct, medians
from attention_coresets.analysis.topics.language_model.claims import CLAIMS
from attention_coresets.analysis.topics.language_model.measures import LANGUAGE, less
from attention_coresets.analysis.topics.real_heads.caches import HEURISTICS, OURS, RIVALS, SEGMENT, SHARE, named

WEIGHTS = "query_exchange_weights"  # ours, the tokens not exchanged


def segments(results: Results) -> str:
    """ "8 segments of 2 texts" that the model's losses are of."""
    rows = results.rows(LANGUAGE)
    if rows.empty:
        return ""
    texts = named(rows).drop_duplicates(list(SEGMENT))
    return f"{len(texts)} segments of {len(distinct(texts, 'text'))} texts"


def losses(results: Results) -> str:
    """Ours against each rival, size by size: the mean loss, its interval, the divergence from the full cache."""
    rows = results.rows(LANGUAGE)
    if OURS not in set(rows["arm"]) or not set(RIVALS) & set(rows["arm"]):
        return ""
    rows = named(rows)
    loss, kl = _less_by_share(rows, "loss"), _less_by_share(rows, "kl")
    rivals = max(len(found) for found in loss.values())
    return (
        f"`{OURS}` at {listed(loss)} of the cache, over {segments(results)}, beside {rivals} rivals: the eviction"
        f" heuristics and kept sinks. Its loss {_lower(loss)}. Its divergence from the full cache, which has less"
        f" noise, {_lower(kl)}."
    )


def _lower(found: dict[str, dict[str, Estimate]]) -> str:
    """Against how many rivals the mean, and the whole interval, is below 0, place by place."""
    mean, interval = (
        tallies({place: {rival: getattr(x, end) < 0 for rival, x in mine.items()} for place, mine in found.items()})
        for end in ("value", "high")
    )
    return f"is lower in the mean than with {mean}; the interval of the difference leaves out zero against {interval}"


def _less_by_share(rows: pd.DataFrame, name: str) -> dict[str, dict[str, Estimate]]:
    """ "1/8" → rival → ours less the rival's."""
    found = {}
    for size in distinct(rows, "size"):
        here = rows.loc[rows["size"] == size]
        rivals = [rival for rival in RIVALS if rival in set(here["arm"])]
        found[f"1/{here['n'].max() / size:g}"] = {rival: less(here, OURS, rival, name) for rival in rivals}
    return found


def construction_times(results: Results) -> str:
    """Seconds a head of ours, of fitting weights alone, and of the slowest heuristic."""
    rows = results.rows(LANGUAGE)
    found = medians(rows.loc[rows["size"] * SHARE == rows["n"]], ["arm"], ["seconds_construct"])
    seconds = dict(zip(found["arm"], column(found, "seconds_construct"), strict=True))
    if not {OURS, WEIGHTS} <= set(seconds) or not set(HEURISTICS) & set(seconds):
        return ""
    slowest = max(x for arm, x in seconds.items() if arm in HEURISTICS)
    return (
        f"At 1/{SHARE} of the cache fitting weights and exchanging tokens takes {number(seconds[OURS])} s a head where"
        f" a heuristic takes at most {number(slowest)} s; `moves=0` takes {number(seconds[WEIGHTS])} s."
    )


def facts(results: Results) -> str:
    """How many arms find none of the planted facts, size by size; the shares that ours and the best find."""
    rows = results.rows(LANGUAGE)
    rows = rows.loc[np.isfinite(column(rows, "needle_found"))]
    if OURS not in set(rows["arm"]):
        return ""
    found = pd.DataFrame(rows.pivot_table(index="arm", columns="size", values="needle_found"))
    places = [f"1/{rows['n'].max() / size:g}" for size in found.columns]
    shares = found.to_numpy(dtype=float)  # [arms, sizes]
    none = listed(f"{count} at {place}" for count, place in zip((shares == 0).sum(axis=0), places, strict=True))
    ours = listed(number(x) for x in shares[found.index.get_loc(OURS)])
    best = code(str(arm) for arm in found.index[shares[:, -1] == shares[:, -1].max()])
    return (
        f"of {len(found)} arms, {none} of the cache find none of them, `{OURS}` finds a share of {ours}; the largest"
        f" share at {places[-1]}, {number(shares[:, -1].max())}, is that of {best}"
    )


def headline(results: Results) -> str:
    """Our loss less that of each rival, at the share that pages quote."""
    found = claimed(CLAIMS, results, "real_loss_8")
    if not found:
        return ""
    return (
        "**A language model on 1/8 of its cache**: its loss with ours less that with each eviction heuristic and"
        f" with kept sinks, {span(found)} nats a token."
    )
