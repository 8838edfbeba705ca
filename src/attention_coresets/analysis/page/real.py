"""The panels of real heads and of the language model."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from attention_coresets.analysis.page import charts, measured
from attention_coresets.analysis.page.panel import SIZE, Panel
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.show import numbers
from attention_coresets.analysis.show.shown import named
from attention_coresets.analysis.stats.estimates import clustered_mean
from attention_coresets.analysis.stats.frames import column, groups, medians
from attention_coresets.analysis.topics.language_model.measures import LANGUAGE
from attention_coresets.analysis.topics.real_heads import caches

_TOLD = {"arm": "arm", "models": "coreset model", "size": "m", "measure": "measure", "value": "value"}
_MODEL = {"loss": "loss added, nats a token", "kl": "KL(full ‖ coreset), nats", "needle_found": "facts found, share"}
_GEOMETRY = {
    "rho_centred": "ρ, keys centred",
    "rho_query_linear": "ρ after the best linear map",
    "half_range": "half of the range of logits, nats",
    "gamma": "balancing constant Γ",
    "sink_weight": "weight on the first token",
}


def real_panels(results: Results) -> Iterator[Panel]:
    """Errors on real heads, losses of the model, and the heads' geometry, of what was measured."""
    for make, rows in ((_errors, results.rows(caches.HEADS)), (_language, results.rows(LANGUAGE))):
        if len(rows):
            yield make(named(rows))
    if results.heads is not None:
        yield _geometry(results.heads, results.tier)


def _errors(rows: pd.DataFrame) -> Panel:
    parts = [
        numbers.over_units(rows, ["experiment", "n", "d", "arm", "size"], name)
        .rename(columns={name: "value"})
        .assign(measure=words)
        for name, words in caches.ERRORS.items()
    ]
    return Panel(
        "heads",
        "Real heads of a language model",
        "Errors of attention of real heads on later text, by how many of the cache's tokens are kept: medians over"
        " heads with 95 % intervals. Values are centred and divided by their largest norm.",
        "Lines of the error on real heads against the size, one line for each arm.",
        pd.concat(parts, ignore_index=True),
        charts.curves("value", "error", _TOLD),
        pick={"measure": "Error at"},
        begin={"measure": caches.ERRORS["heldout_mean"]},
        against={"size": SIZE},
        several="arm",
        start=measured.first_arms(numbers.errors(rows, [])),
        unit="heads",
    )


def _language(rows: pd.DataFrame) -> Panel:
    rows = caches.named(rows)
    rows = rows.assign(loss=column(rows, "loss") - column(rows, "loss_full"))
    lines = []
    for name, words in _MODEL.items():
        known = rows.loc[rows[name].notna()]
        for names, group in groups(medians(known, ["arm", "size", *caches.SEGMENT], [name]), ["arm", "size"]):
            found = clustered_mean(column(group, name), np.arange(len(group)))
            here = known.loc[(known["arm"] == names["arm"]) & (known["size"] == names["size"])]
            told = {"models": "model", "cells": "cell", "revisions": "revision"}
            more = {title: " ".join(sorted(set(here[detail]))) for title, detail in told.items()}
            value = {"value": found.value, "low": found.low, "high": found.high, "units": found.caches}
            lines.append(names | value | more | {"measure": words, "experiment": LANGUAGE})
    return Panel(
        "language",
        "A language model on coresets",
        "The model reads on after its cache was cut to m tokens a head: means over segments of texts with 95 %"
        " intervals. The loss added is that on the coreset less that on the full cache.",
        "Lines of the loss added, the divergence or the facts found against the size, one line for each arm.",
        pd.DataFrame(lines),
        charts.curves("value", "value", _TOLD, scale="linear"),
        pick={"measure": "Measure"},
        begin={"measure": _MODEL["loss"]},
        against={"size": SIZE},
        several="arm",
        start=["query_exchange", "h2o", "snapkv", "expected_attention", "streaming_llm", "uniform"],
        unit="segments",
    )


def _geometry(heads: pd.DataFrame, tier: str) -> Panel:
    parts = [
        heads[["text", "layer", "kv_head", "n"]].assign(value=heads[name], measure=words)
        for name, words in _GEOMETRY.items()
        if name in heads
    ]
    found = pd.concat(parts, ignore_index=True)
    one = {"low": np.nan, "high": np.nan, "units": 1, "cells": "–", "experiment": "heads.parquet", "models": "–"}
    return Panel(
        "geometry",
        "What real heads are like",
        "Each head of the model on each text, by its layer: how far its logits reach, and what the bounds'"
        " quantities are there. One point a head; nothing is averaged.",
        "A point for each head against its layer, coloured by text.",
        found.assign(**one, revisions=heads["revision"].iloc[0], arm=found["text"]),
        charts.points("value", _TOLD_GEOMETRY),
        pick={"measure": "Quantity"},
        begin={"measure": _GEOMETRY["rho_centred"]},
        against={"layer": ("layer", "linear")},
        unit="head",
    )


_TOLD_GEOMETRY = {
    "text": "text",
    "layer": "layer",
    "kv_head": "KV head",
    "n": "n",
    "measure": "quantity",
    "value": "value",
}
