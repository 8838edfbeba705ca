"""What compressed caches answer, and how they do on texts of other lengths, as Markdown."""

from collections.abc import Mapping, Sequence

import pandas as pd

from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.markdown import interval, table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.topics.answers.measures import KINDS, LENGTHS, PROBED, answered, by_length
from attention_coresets.analysis.topics.facts.measures import mean

_ANSWERS = {"right": "tokens right", "answer": "loss added"}
_FACTS = {"found": "facts found", "kl": "KL"}


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


def _by_arm(shares: Mapping[str, pd.DataFrame], words: Mapping[str, str], order: str) -> str:
    """A line an arm, by its mean of `order` at the last share; columns of `words` at each share."""
    smallest = list(shares.values())[-1]
    arms: Sequence[str] = sorted(
        distinct(smallest, "arm"), key=lambda arm: float(column(smallest.loc[smallest["arm"] == arm], order).mean())
    )
    heads = [f"{word}, {share}" for share in shares for word in words.values()]
    lines = []
    for arm in arms:
        means = [mean(rows, arm, name) for rows in shares.values() for name in words]
        lines.append([model_of(smallest, arm), *("–" if each is None else interval(each) for each in means)])
    return table([ARM, *heads], lines)
