"""Measures on what a compressed cache answers, beside facts of different kinds, and on texts of other lengths."""

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.measured import Measure, Measured
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import paired_ratio
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.topics.facts.measures import FACTS, OURS, mean, told, unweighted
from attention_coresets.analysis.topics.language_model.measures import less
from attention_coresets.analysis.topics.real_heads.caches import SEGMENT, at_share

PROBED = "real_probes"
LENGTHS = "real_lengths"
LEAD, LEADLESS = "real_lead", "_leadless"  # the experiment, and the end of its arms' names
ACROSS = 4096  # tokens of the texts in which every fact stands across chunks
REPETITION = "real_repetition"
KINDS = {
    "one_kind": "numbers of eight cities",
    "pairs": "a list of keys and values",
    "quotes": "quotations",
}  # in words, by probe


def answered(rows: pd.DataFrame) -> pd.DataFrame:
    """`told`, with the share of the answers' tokens that are right over the full cache's, and the loss that is added.

    NaN where the full cache gets none right.
    """
    full = column(rows, "needle_right_full")
    right = np.divide(column(rows, "needle_right"), full, out=np.full(len(rows), np.nan), where=full > 0)
    return told(rows).assign(right=right, answer=column(rows, "needle_loss") - column(rows, "needle_loss_full"))


def answers_right(share: int) -> Measure:
    """The mean over segments of ours at m = n / share, a part for each kind of question."""

    def measure(results: Results) -> list[Measured]:
        parts = []
        for probe, rows in _by_probe(results, share):
            if (found := mean(rows, OURS, "right")) is not None:
                parts.append(Measured(f"{KINDS[probe]}, m = n/{share}", found, unit="segments"))
        return parts

    return measure


def answers_more(share: int) -> Measure:
    """The same, ours less each arm without weights and without a replay or with one: a part for each kind and arm."""

    def measure(results: Results) -> list[Measured]:
        parts = []
        for probe, rows in _by_probe(results, share):
            rows = rows.loc[np.isfinite(column(rows, "right"))]
            if OURS in set(rows["arm"]):
                parts += [
                    Measured(f"{KINDS[probe]}, less {rival}", less(rows, OURS, rival, "right"), unit="segments")
                    for rival in unweighted(rows)
                ]
        return parts

    return measure


def divergences_at_lengths(results: Results) -> list[Measured]:
    """The median over segments of our divergence over that of each arm without weights, by length and share."""
    parts = []
    for n, size, rows in by_length(results):
        rivals = unweighted(rows) if OURS in set(rows["arm"]) else []
        ratios = {rival: paired_ratio(rows, OURS, rival, "kl", SEGMENT) for rival in rivals}
        where = f"n = {n}, m = n/{n // size}"
        parts += [Measured(f"{where}, over {rival}", ratio, unit="segments") for rival, ratio in ratios.items()]
    return parts


def facts_at_lengths(share: int) -> Measure:
    """The mean over segments of the facts that ours finds, over those that the full cache finds, by length."""

    def measure(results: Results) -> list[Measured]:
        parts = []
        for n, size, rows in by_length(results):
            if n == share * size and (found := mean(rows, OURS, "found")) is not None:
                parts.append(Measured(f"n = {n}, m = n/{share}", found, unit="segments"))
        return parts

    return measure


def divergences_by_lead(share: int) -> Measure:
    """The median over segments of our divergence with a lead over that without, by length."""

    def measure(results: Results) -> list[Measured]:
        pairs = {n: rows for n, rows in led(results, share).items() if OURS in rules_of(rows)}
        ratios = {n: paired_ratio(rows, OURS, f"{OURS}{LEADLESS}", "kl", SEGMENT) for n, rows in pairs.items()}
        return [Measured(f"n = {n}, m = n/{share}", ratio, unit="segments") for n, ratio in ratios.items()]

    return measure


def facts_by_lead(share: int) -> Measure:
    """The mean over segments of the facts found over the full cache's, with a lead less without, by rule.

    In the texts whose facts stand across chunks.
    """

    def measure(results: Results) -> list[Measured]:
        rows = led(results, share).get(ACROSS)
        if rows is None:
            return []
        rows = rows.loc[np.isfinite(column(rows, "found"))]
        found = {arm: less(rows, arm, f"{arm}{LEADLESS}", "found") for arm in rules_of(rows)}
        return [Measured(f"{arm}, n = {ACROSS}, m = n/{share}", each, unit="segments") for arm, each in found.items()]

    return measure


def led(results: Results, share: int) -> dict[int, pd.DataFrame]:
    """The rows of LEAD by length, and those of the same rules with a lead, of whichever experiment has them."""
    rows = results.rows(LEAD)
    if rows.empty:
        return {}
    others = pd.concat([results.rows(FACTS), results.rows(LENGTHS)])
    rules = [arm.removesuffix(LEADLESS) for arm in distinct(rows, "arm")]
    both = told(at_share(pd.concat([rows, others.loc[others["arm"].isin(rules)]]), share))
    both = both.drop_duplicates(["n", "arm", *SEGMENT])  # of the longest texts tier full has some twice
    return {int(n): both.loc[both["n"] == n] for n in distinct(rows, "n")}


def rules_of(rows: pd.DataFrame) -> list[str]:
    """The rules that these rows have with a lead and without."""
    arms = set(rows["arm"])
    return [arm for arm in distinct(rows, "arm") if f"{arm}{LEADLESS}" in arms]


def by_length(results: Results) -> list[tuple[int, int, pd.DataFrame]]:
    """The rows of LENGTHS for each length of text and number of tokens kept."""
    rows = results.rows(LENGTHS)
    if rows.empty:
        return []
    rows = told(rows)
    return [
        (int(n), int(size), rows.loc[(rows["n"] == n) & (rows["size"] == size)])
        for n in distinct(rows, "n")
        for size in distinct(rows.loc[rows["n"] == n], "size")
    ]


def _by_probe(results: Results, share: int) -> list[tuple[str, pd.DataFrame]]:
    rows = answered(at_share(results.rows(PROBED), share))
    return [(probe, rows.loc[rows["probe"] == probe]) for probe in KINDS if probe in set(rows["probe"])]
