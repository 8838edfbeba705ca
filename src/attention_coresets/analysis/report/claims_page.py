"""The tables of claims by block and experiment, and the list of checks of the code below them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from attention_coresets.analysis.parts.band import Band
from attention_coresets.analysis.parts.block import BLOCKS, Block
from attention_coresets.analysis.parts.markdown import interval, number, table
from attention_coresets.analysis.parts.measured import Measured
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.status import DESCRIPTIVE, NOT_RUN, WORST
from attention_coresets.analysis.parts.topic import Section
from attention_coresets.analysis.parts.verdict import Check, Outcome, checked, measured
from attention_coresets.analysis.parts.wording import pattern
from attention_coresets.analysis.report.ranges import range_tested
from attention_coresets.analysis.topics.contents import CHECKS, SECTIONS


def claims(results: Results, outcomes: Mapping[str, Outcome]) -> str:
    """All blocks of a tier, and the checks."""
    blocks = [_block(block, results, outcomes) for block in BLOCKS]
    return "\n\n".join([*filter(None, blocks), checks(results)])


def counts(outcomes: Sequence[Outcome]) -> str:
    """ "3 claims: 2 reproduced, 1 not run"."""
    found = Counter(outcome.status for outcome in outcomes)
    claims = f"{len(outcomes)} claim{'s' if len(outcomes) != 1 else ''}"
    return f"{claims}: {', '.join(f'{count} {word}' for word, count in found.most_common())}"


def _block(block: Block, results: Results, outcomes: Mapping[str, Outcome]) -> str:
    """Heading, rule, a table for each experiment, and the notes of tolerances and of what was added."""
    mine = [outcome for outcome in outcomes.values() if outcome.claim.block == block]
    if not mine:
        return ""
    late = {outcome.claim.id: outcome.claim.expected.after for outcome in mine}
    added = {outcome.claim.id: outcome.claim.added for outcome in mine}
    return "\n\n".join(
        [
            f"## {block.letter}. {block.title}\n\n{block.about} {counts(mine)}.",
            *(text for section in SECTIONS if (text := _experiment(section, block, results, mine))),
            *_notes("† {}: set after a run, {}.", late),
            *_notes("§ {}: after a look at the results: {}.", added),
        ]
    )


def _experiment(section: Section, block: Block, results: Results, outcomes: Sequence[Outcome]) -> str:
    """The claims of a block on one experiment, under its name and what it ran."""
    mine = [outcome for outcome in outcomes if outcome.claim.experiment == section.experiment]
    if not mine:
        return ""
    ran = range_tested(section.experiment, results.rows(section.experiment))
    link = f"**[{section.title}](results/{results.tier}/tables.md#{section.experiment})**"
    refuted = ["What would refute it"] if block.theorem else []
    head = ["Claim", "Model", block.source, *refuted, "Number, 95 %", "Verdict"]
    return f"{link} {ran}.\n\n{table(head, [_line(outcome) for outcome in mine])}"


def _notes(words: str, reasons: Mapping[str, str]) -> list[str]:
    """A line for each reason, with all claims or checks that have it."""
    named = {reason: [name for name in reasons if reasons[name] == reason] for reason in reasons.values() if reason}
    return [words.format(pattern(names, reasons), reason) for reason, names in named.items()]


def _line(outcome: Outcome) -> list[str]:
    claim, deciding = outcome.claim, outcome.deciding
    tolerance = f" [{claim.expected.marked}]" if claim.expected.decides else f" {claim.expected.marked}".rstrip()
    mark = " §" if claim.added else ""
    start = [f"`{claim.id}`{mark} {claim.statement}", claim.models, f"{claim.says}{tolerance}"]
    if claim.block.theorem:
        start.append(claim.refutes)
    if deciding is None:
        return [*start, "–", NOT_RUN]
    part, _ = deciding
    others = f"; {len(outcome.parts)} settings" if len(outcome.parts) > 1 else ""
    return [
        *start,
        f"{value(part)} ({part.setting}{others})",
        f"**{outcome.status}**{remark(part, outcome.status, claim.expected)}",
    ]


def value(part: Measured) -> str:
    """The number with its interval, alone where it is exact, or why there is none."""
    if part.reason:
        return part.reason
    return number(part.estimate.value) if part.estimate.exact else interval(part.estimate)


def remark(part: Measured, word: str, expected: Band) -> str:
    """On which side of its band an estimate lies that misses it; of a benign rate whether it lies above the bound's; of
    others whether the interval excludes the predicted value itself."""
    found, predicted = part.estimate, expected.predicted
    if word in WORST:
        return " (below)" if found.high < expected.low else " (above)"
    if word == DESCRIPTIVE:
        return " (above)" if found.low > expected.high else ""
    excludes = predicted is not None and (found.high < predicted or found.low > predicted)
    return f", interval excludes {predicted:g}" if excludes else ""


def checks(results: Results) -> str:
    """The checks of the code as a list, each with the number it rests on."""
    lines = [_check(check, results) for check in CHECKS]
    notes = _notes("† {}: set after a run, {}.", {check.id: check.expected.after for check in CHECKS})
    about = "Consequences of theorems, and identities. A violation means an error in the code or in a proof."
    return "\n\n".join([f"## Checks of the code\n\n{about}", "\n".join(lines), *notes])


def _check(check: Check, results: Results) -> str:
    parts = measured(check, results)
    numbers = "; ".join(f"{value(part)} ({part.setting})" for part in parts) or "–"
    word, expected = checked(check, results), check.expected.marked
    return f"- `{check.id}` {check.statement}: {numbers}, must be {expected}: **{word}** (`{check.experiment}`)"
