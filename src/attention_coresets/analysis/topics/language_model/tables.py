"""The language model on coresets, as Markdown."""

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.markdown import interval, number, table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import NOTHING, Estimate, clustered_mean
from attention_coresets.analysis.stats.frames import column, distinct, medians
from attention_coresets.analysis.topics.language_model.measures import LANGUAGE, less
from attention_coresets.analysis.topics.real_heads.caches import OURS, SEGMENT, SHARE, at_share, named


def language(results: Results) -> str:
    """Loss added, divergence and facts found by arm and size, means over segments of texts."""
    rows = results.rows(LANGUAGE)
    if rows.empty:
        return f"No language model run yet: run `python scripts/sweep.py experiment={LANGUAGE}`."
    rows = named(rows)
    rows = rows.assign(added=column(rows, "loss") - column(rows, "loss_full"))
    here, sizes = at_share(rows, SHARE), distinct(rows, "size")
    lines = []
    for arm in sorted(distinct(here, "arm"), key=lambda arm: column(here.loc[here["arm"] == arm], "added").mean()):
        mine = rows.loc[rows["arm"] == arm]
        added = [interval(_mean(mine.loc[mine["size"] == size], "added")) for size in sizes]
        there = here.loc[here["arm"] == arm]
        rest = [number(_mean(there, name).value) for name in ("kl", "needle_found")]
        against = ["–" if arm == OURS else interval(less(here, OURS, arm, name)) for name in ("loss", "kl")]
        lines.append([model_of(rows, arm), *added, *rest, *against])
    head = [ARM, *(f"loss added, m = {size}" for size in sizes), "KL", "facts found"]
    head += [f"{OURS} less it: loss", "KL"]
    return _texts(rows) + table(head, lines)


def _texts(rows: pd.DataFrame) -> str:
    texts = rows.drop_duplicates(list(SEGMENT))
    loss, found = (number(float(np.mean(column(texts, name)))) for name in ("loss_full", "needle_found_full"))
    kinds, n = len(distinct(texts, "text")), rows["n"].max()
    return (
        f"{len(texts)} segments of {kinds} texts, n = {n}, loss on the tokens that follow; the full cache:"
        f" {loss} nats a token and {found} of the planted facts found. KL, facts, last columns: m = n/{SHARE}.\n\n"
    )


def _mean(rows: pd.DataFrame, name: str) -> Estimate:
    """Mean over segments, each by its median over seeds; nothing where one lacks it, as random tokens lack facts."""
    x = column(medians(rows, SEGMENT, [name]), name)
    return clustered_mean(x, np.arange(len(x))) if len(x) and not np.isnan(x).any() else NOTHING
