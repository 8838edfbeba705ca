"""What we aimed at on a real model, met or not, in one table: the page on real caches has it where a reader looks."""

from attention_coresets.analysis.parts.markdown import table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.status import NOT_RUN, WORST
from attention_coresets.analysis.parts.verdict import Outcome
from attention_coresets.analysis.report.claims_page import remark, value
from attention_coresets.analysis.report.decided import decided
from attention_coresets.analysis.topics.answers.measures import LEAD, LENGTHS, PROBED
from attention_coresets.analysis.topics.facts.measures import FACTS, GEMMA


def real_targets(results: Results) -> str:
    """A line for each claim, the number that decides it, and every setting that misses."""
    experiments = (FACTS, GEMMA, PROBED, LENGTHS, LEAD)
    mine = [outcome for outcome in decided(results).values() if outcome.claim.experiment in experiments]
    return table(["On", "What", "We aimed at", "Measured, 95 %", "Verdict"], [_line(outcome) for outcome in mine])


def _line(outcome: Outcome) -> list[str]:
    claim, deciding = outcome.claim, outcome.deciding
    start = [f"`{claim.experiment}`", claim.statement, claim.says]
    if deciding is None:
        return [*start, "–", NOT_RUN]
    missed = [part for part, word in outcome.parts if word in WORST]
    shown = missed or [deciding[0]]
    numbers = "; ".join(f"{value(part)} ({part.setting})" for part in shown)
    if len(outcome.parts) > 1:
        numbers += f"; {f'{len(missed)} of ' if missed else ''}{len(outcome.parts)} settings"
    return [*start, numbers, f"**{outcome.status}**{remark(deciding[0], outcome.status, claim.expected)}"]
