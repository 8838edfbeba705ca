"""Which caches of a real model, arms and errors the tables hold: rows by text, head and share of the cache."""

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from attention_coresets.analysis.stats.frames import column, medians

HEADS = "real_errors"
HEAD = ("text", "layer", "kv_head")  # what names one head's cache
SEGMENT = ("text", "start")  # and one text
HEURISTICS = ("streaming_llm", "h2o", "snapkv", "tova", "knorm", "keydiff", "expected_attention", "curdkv")
RIVALS = (*HEURISTICS, "sinks_uniform")
OURS = "query_exchange"
ERRORS = {
    "heldout_mean": "held-out queries, mean",
    "heldout_p99": "held-out queries, 99th percentile",
    "heldout_max": "held-out queries, largest",
    "error": "worst query of the body",
}
SINK_HEAVY = 0.5  # mean weight of token 0 from which a head counts as one with an attention sink
SHARE = 8  # 1 / the part of the cache that pages quote


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a real experiment with the text and its start as columns of their own."""
    parameters = [json.loads(text) for text in rows["cache_params"]]
    return rows.assign(text=[p["text"] for p in parameters], start=[p.get("start", 0) for p in parameters])


def at_share(rows: pd.DataFrame, share: int) -> pd.DataFrame:
    """The rows of a real experiment at m = n / share, text named."""
    return named(rows.loc[rows["size"] * share == rows["n"]])


def met(rows: pd.DataFrame, rivals: Sequence[str]) -> list[str]:
    return [rival for rival in rivals if rival in set(rows["arm"])]


def has_sink(rows: pd.DataFrame) -> np.ndarray:
    """Whether each row's head has an attention sink."""
    return column(rows, "sink_weight") >= SINK_HEAVY


def errors_by_size(rows: pd.DataFrame) -> pd.DataFrame:
    """Medians over heads: a row for each (arm, size), a column for each of ERRORS."""
    names = list(ERRORS)
    return medians(medians(named(rows), [*HEAD, "arm", "size"], names), ["arm", "size"], names)
