"""Sentences with numbers on the league: for the headline, and what contradicted expectations."""

import pandas as pd

from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import between, claimed, code, listed, span
from attention_coresets.analysis.stats.frames import column
from attention_coresets.analysis.topics.league.claims import CLAIMS
from attention_coresets.analysis.topics.league.standings import EXPERIMENT, MODELS, REFERENCE, our_arms, standings


def ahead(results: Results) -> str:
    """Ours over the best other of each cell, model by model, and the portfolio's beside it."""
    words = []
    for name in (*MODELS, *(f"portfolio_{model}" for model in MODELS if len(our_arms(model)) > 1)):
        every, unseen, more = (
            claimed(CLAIMS, results, f"league_{name}{part}") for part in ("", "_unseen", "_unseen_more")
        )
        if every:
            own = f"; on unseen families {span(unseen)}" if unseen else ""
            own += f", at more dimensions {span(more)}" if more else ""
            words.append(f"{span(every)} ({name.replace('_', ', ')}{own})")
    if not words:
        return ""
    return (
        "**League** of all constructions, on a fresh seed. Error of ours over that of the best other, picked cell"
        f" by cell: {', '.join(words)}."
    )


def better_rules(results: Results) -> str:
    """In how many families of the league herding and rules with kernel swaps err less than the walk in the mean."""
    errors = standings(results.rows(EXPERIMENT), "tilted").errors
    if REFERENCE not in errors:
        return ""
    ratios = pd.DataFrame(errors.sub(column(errors, REFERENCE), axis=0).groupby("cache").mean())
    counts = {str(arm): float((column(ratios, str(arm)) < 0).sum()) for arm in errors}
    herding = {arm: n for arm, n in counts.items() if arm.startswith("herding")}
    swaps = {arm: n for arm, n in counts.items() if arm.endswith("kernel_swaps")}
    words = [f"{code(herding)} on {between(herding.values())}"] if herding else []
    words += [f"the {len(swaps)} rules followed by kernel swaps on {between(swaps.values())}"] if swaps else []
    if not words:
        return ""
    return (
        "The walk has the proof, but not the least error. Among tilted coresets, on the league's"
        f" {len(ratios)} families, others err less in the mean: {listed(words)}."
    )
