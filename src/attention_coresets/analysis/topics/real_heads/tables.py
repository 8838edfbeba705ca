"""The heads of a real model as Markdown: geometry, and errors of every arm beside ours."""

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.markdown import interval, number, table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.real_heads.caches import (
    ERRORS,
    HEAD,
    HEADS,
    OURS,
    SHARE,
    at_share,
    errors_by_size,
)
from attention_coresets.analysis.topics.real_heads.measures import over_layers, pooled

GEOMETRY = {
    "rho_uncentred": "ρ = max ‖q‖·max ‖k‖, keys as they are",
    "rho_centred": "ρ, keys about their mean",
    "rho_ball": "ρ, keys about the centre of their enclosing ball",
    "rho_linear": "ρ after the best linear map",
    "rho_query_ball": "ρ of queries about a centre of their own",
    "rho_query_linear": "ρ, both",
    "sigma": "σ of the tilt (R = 1), keys centred",
    "exponent_centred": "ρσ, keys centred",
    "exponent_query_linear": "ρσ after the best map about a query centre",
    "half_range": "half-range of logits, largest over queries",
    "half_range_median": "the same, median over queries",
    "total_sensitivity_causal": "T of calibration queries where they stood",
    "total_sensitivity": "T of calibration queries moved behind the cache",
    "log_total_sensitivity": "its logarithm",
    "total_sensitivity_heldout": "T of held-out queries",
    "gamma": "Γ of 512 calibration queries",
    "gamma_sensitivity": "T of the same 512",
    "coverage_99": "held-out softmax over calibration sensitivity, 99 % of attention below",
    "uncovered_2": "share of attention where it exceeds 2",
    "uncovered_10": "share of attention where it exceeds 10",
    "sink_weight": "weight of the first token",
    "effective_sample_size": "1 / Σ softmax², median over queries",
    "effective_rank": "effective rank of the keys",
}


def geometry(results: Results) -> str:
    """Median with interval, and 10 to 90 % range over heads, text by text."""
    heads = results.heads
    if heads is None:
        return "No heads measured yet: run `python scripts/heads.py`."
    texts = [(names["text"], part) for names, part in groups(heads, ["text"])]
    lines = [[words, *(_median_and_range(part, name) for _, part in texts)] for name, words in GEOMETRY.items()]
    counts = [f"{text}: {len(part)} heads, n = {part['n'].max():.0f}" for text, part in texts]
    log_n = number(float(np.log(column(heads, "n").max())))
    note = f"log n = {log_n}. Median [95 %, over layers], and the range of the middle 80 % of heads.\n\n"
    return note + table(["In nats where it is an exponent", *counts], lines)


def gemma_geometry(results: Results) -> str:
    """The heads with full attention of the second model, the least to the largest, beside the first's medians."""
    heads, first = results.gemma_heads, results.heads
    if heads is None or first is None:
        return "No heads measured yet: run `python scripts/heads.py --gemma`."
    lines = [
        [words, *(number(float(x)) for x in np.quantile(column(heads, name), [0, 0.5, 1])), _middle(first, name)]
        for name, words in GEOMETRY.items()
    ]
    layers = ", ".join(f"{layer:g}" for layer in distinct(heads, "layer"))
    note = (
        f"{len(heads)} heads of {len(distinct(heads, 'text'))} texts, layers {layers}, n = {heads['n'].max():.0f};"
        f" beside them the median of SmolLM2-135M's {len(first)} heads, n = {first['n'].max():.0f}.\n\n"
    )
    return note + table(["In nats where it is an exponent", "least", "median", "largest", "SmolLM2"], lines)


def _middle(heads: pd.DataFrame, name: str) -> str:
    return number(float(np.median(column(heads, name))))


def _median_and_range(heads: pd.DataFrame, name: str) -> str:
    x = column(heads, name)
    low, high = np.quantile(x, [0.1, 0.9])
    return f"{interval(over_layers(heads, name))}; {number(low)} to {number(high)}"


def errors(results: Results) -> str:
    """Arms at 1/8 of the cache: medians over heads, and ours over each, paired head by head."""
    rows = results.rows(HEADS)
    if rows.empty:
        return f"No real heads measured yet: run `python scripts/sweep.py experiment={HEADS}`."
    here = at_share(rows, SHARE)
    found = errors_by_size(here).set_index("arm").sort_values("heldout_mean")
    lines = [
        [
            model_of(rows, arm),
            *(number(float(found.loc[arm, name])) for name in ("heldout_mean", "heldout_p99", "error")),
            *(
                "–" if arm == OURS else interval(pooled(here, OURS, arm, name))
                for name in ("heldout_mean", "heldout_p99")
            ),
        ]
        for arm in found.index
    ]
    return _about(here) + table(
        [ARM, *(ERRORS[name] for name in ("heldout_mean", "heldout_p99", "error")), f"{OURS} over it: mean", "99 %"],
        lines,
    )


def _about(rows: pd.DataFrame) -> str:
    heads, texts = len(rows[list(HEAD)].drop_duplicates()), len(distinct(rows, "text"))
    return (
        f"m = n/{SHARE} = {rows['size'].max()} of {rows['n'].max()} tokens, {heads} heads on {texts} texts"
        f" ({_which(rows)}): medians; last columns geometric means of ratios on the same heads, intervals over"
        " layers.\n\n"
    )


def _which(rows: pd.DataFrame) -> str:
    """Which heads of the model the rows are of."""
    swept = {
        names["text"]: set(zip(part["layer"], part["kv_head"], strict=True)) for names, part in groups(rows, ["text"])
    }
    kv_heads, layers = (", ".join(f"{x:g}" for x in distinct(rows, name)) for name in ("kv_head", "layer"))
    same = len(swept) > 1 and all(heads == next(iter(swept.values())) for heads in swept.values())
    return f"KV head {kv_heads} of layers {layers}{', the same ones on every text' if same else ''}"


def errors_by_share(results: Results) -> str:
    """Held-out mean of every arm at every size, medians over heads."""
    rows = results.rows(HEADS)
    found = errors_by_size(rows).pivot_table(index="arm", columns="size", values="heldout_mean")
    found = found.sort_values(by=found.columns[len(found.columns) // 2])
    lines = [
        [model_of(rows, str(arm)), *(number(float(x)) for x in line)]
        for arm, line in zip(found.index, found.to_numpy(), strict=True)
    ]
    return "Held-out mean, medians over heads.\n\n" + table([ARM, *(f"m = {size}" for size in found.columns)], lines)


def section(results: Results) -> str:
    """Geometry of the heads, then errors at one size and at all."""
    return "\n\n".join(make(results) for make in (geometry, errors, errors_by_share))
