"""The claims with their verdicts, and the checks of the code, as HTML: what the page says first."""

from collections import Counter
from html import escape

from attention_coresets.analysis.parts.block import OWN
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.status import BEST, EASIER, NOT_RUN, WORST
from attention_coresets.analysis.parts.verdict import VIOLATED, Outcome, checked
from attention_coresets.analysis.report.claims_page import remark, value
from attention_coresets.analysis.report.decided import decided
from attention_coresets.analysis.report.ranges import range_tested
from attention_coresets.analysis.topics.contents import CHECKS

_HEAD = ("Verdict", "Claim, and the command that tests it", "What was expected", "Number, 95 %", "Range tested")


def verdicts(results: Results) -> str:
    """A table of all claims, with a choice of the verdict to see."""
    outcomes = list(decided(results).values())
    counts = Counter(outcome.status for outcome in outcomes)
    options = "".join(
        f'<option value="{escape(word)}">{escape(word)} ({count})</option>' for word, count in counts.most_common()
    )
    head = "".join(f'<th scope="col">{word}</th>' for word in _HEAD)
    body = "\n".join(_line(outcome, results) for outcome in outcomes)
    broken = [check.id for check in CHECKS if checked(check, results) == VIOLATED]
    checks = f"{len(CHECKS)} checks of the code: {'violated: ' + ', '.join(broken) if broken else 'none violated'}."
    return (
        f'<div class="controls"><label>Verdict <select id="wanted"><option value="">all {len(outcomes)} claims</option>'
        f"{options}</select></label></div>\n"
        f'<div class="scroll" tabindex="0" role="region" aria-label="claims"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>\n<p>{checks}</p>"
    )


def _line(outcome: Outcome, results: Results) -> str:
    claim, deciding = outcome.claim, outcome.deciding
    number, note = "–", ""
    if deciding is not None:
        part, _ = deciding
        number, note = f"{value(part)} ({part.setting})", remark(part, outcome.status, claim.expected)
    tolerance = f" [{claim.expected.marked}]" if claim.expected.decides else ""
    command = f"python scripts/sweep.py experiment={claim.experiment} tier={results.tier}"
    cells = (
        f'<td class="verdict {_tone(outcome)}">{escape(outcome.status + note)}</td>',
        f"<td><strong>{escape(claim.id)}</strong> {escape(claim.statement)}<br><code>{command}</code></td>",
        f"<td>{'aimed at' if claim.block == OWN else 'theorem'}: {escape(claim.says + tolerance)}</td>",
        f"<td>{escape(number)}</td>",
        f"<td>{escape(range_tested(claim.experiment, claim.tested()(results)).replace('`', ''))}</td>",
    )
    return f'<tr data-verdict="{escape(outcome.status)}">{"".join(cells)}</tr>'


def _tone(outcome: Outcome) -> str:
    if outcome.status in (*BEST, EASIER):
        return "good"
    return "bad" if outcome.status in WORST else "" if outcome.status == NOT_RUN else "open"
