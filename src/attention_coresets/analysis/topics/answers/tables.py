"""What compressed caches answer, and how they do on texts of other lengths, as Markdown."""

from collections.abc import Mapping, Sequence

import pandas as pd

from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.markdown import table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.topics.answers.measures import (
    KINDS,
    LEAD,
    LEADLESS,
    LENGTHS,
    PROBED,
    REPETITION,
    answered,
    by_length,
    led,
    rules_of,
)
from attention_coresets.analysis.topics.facts.tables import mean_of
from attention_coresets.analysis.topics.real_heads.caches import SEGMENT

_ANSWERS = {"right": "tokens right", "answer": "loss added"}
_FACTS = {"found": "facts found", "kl": "KL"}
_SHARE = 8  # 1 / the part of the cache at which a lead is looked at


def probes(results: Results) -> str:
    """Tokens of answers that are right over the full cache's, and the loss added, a table a kind of question."""
    rows = results.rows(PROBED)
    if rows.empty:
        return f"Not run yet: `python scripts/sweep.py experiment={PROBED}`."
    rows, parts = answered(rows), []
    for probe, words in KINDS.items():
        here = rows.loc[rows["probe"] == probe]
        if here.empty:
            continue
        segments = here.drop_duplicates(["text", "start"])
        full = column(segments, "needle_right_full").mean()
        n = here["n"].max()
        shares = {f"1/{n / m:g}": here.loc[here["size"] == m] for m in distinct(here, "size")[::-1]}
        parts.append(
            f"{words.capitalize()}, {len(segments)} segments, n = {n}: the full cache gets {full:.3g} of the tokens"
            f" right. Over that, and nats a token; 95 % intervals over segments."
            f"\n\n{_by_arm(shares, _ANSWERS, 'answer')}"
        )
    return "\n\n".join(parts)


def lengths(results: Results) -> str:
    """Facts found over the full cache's and divergence, by arm, length and share, means over segments."""
    found = by_length(results)
    if not found:
        return f"Not run yet: `python scripts/sweep.py experiment={LENGTHS}`."
    lines = ["Facts over those of the full cache; KL in nats a token; 95 % intervals over segments."]
    for n in sorted({n for n, _, _ in found}):
        shares = {f"1/{n // size}": rows for length, size, rows in reversed(found) if length == n}
        lines.append(f"n = {n}\n\n{_by_arm(shares, _FACTS, 'kl')}")
    return "\n\n".join(lines)


def lead(results: Results) -> str:
    """Facts found over the full cache's and divergence, without a lead and with one, by length and rule."""
    pairs = led(results, _SHARE)
    if not pairs:
        return f"Not run yet: `python scripts/sweep.py experiment={LEAD}`."
    lines = []
    for n, rows in pairs.items():
        for arm in rules_of(rows):
            cells = [mean_of(rows, f"{arm}{end}", name) for name in _FACTS for end in (LEADLESS, "")]
            lines.append([str(n), f"`{arm}`", *cells])
    heads = [f"{word}, {end}" for word in _FACTS.values() for end in ("without a lead", "with")]
    about = f"1/{_SHARE} of the cache; facts over the full cache's, KL in nats a token; 95 % intervals over segments."
    return f"{about}\n\n{table(['n', 'Rule', *heads], lines)}"


def repetition(results: Results) -> str:
    """The loss of saying the text again, added to the full cache's, and tokens right over its, by length and arm."""
    rows = results.rows(REPETITION)
    if rows.empty:
        return f"Not run yet: `python scripts/sweep.py experiment={REPETITION}`."
    rows = answered(rows)
    parts = []
    for n in distinct(rows, "n"):
        here = rows.loc[rows["n"] == n]
        shares = {f"1/{n // size}": here.loc[here["size"] == size] for size in distinct(here, "size")[::-1]}
        segments = here.drop_duplicates(list(SEGMENT))
        loss, right = (column(segments, f"needle_{name}_full").mean() for name in ("loss", "right"))
        parts.append(
            f"n = {n}, {len(segments)} segments: the full cache says its text again with {loss:.3g} nats a token and"
            f" {right:.3g} of the tokens right; beside it, nearly in-sample for rules that replay:"
            f"\n\n{_by_arm(shares, _ANSWERS, 'answer')}"
        )
    return "\n\n".join(parts)


def _by_arm(shares: Mapping[str, pd.DataFrame], words: Mapping[str, str], order: str) -> str:
    """A line an arm, by its mean of `order` at the last share; columns of `words` at each share."""
    smallest = list(shares.values())[-1]
    arms: Sequence[str] = sorted(
        distinct(smallest, "arm"), key=lambda arm: float(column(smallest.loc[smallest["arm"] == arm], order).mean())
    )
    heads = [f"{word}, {share}" for share in shares for word in words.values()]
    lines = []
    for arm in arms:
        cells = [mean_of(rows, arm, name) for rows in shares.values() for name in words]
        lines.append([model_of(smallest, arm), *cells])
    return table([ARM, *heads], lines)
