"""What a claim is, and how one is decided on a tier's results; and checks of the code, which are held or violated."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isinf, isnan

from attention_coresets.analysis.parts.band import Band
from attention_coresets.analysis.parts.block import Block
from attention_coresets.analysis.parts.measured import Measure, Measured, Rows, rows_of
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.status import CONSISTENT, NOT_FITTED, NOT_RUN, overall, status


@dataclass(frozen=True)
class Claim:
    """One line of a table of paper_repro.md.

    models: the coreset models it speaks of. block: one of `block.BLOCKS`. says: what the theorem says of it, or what we
    aimed at; refutes: what would refute that. expected: the values that it allows. rows: those that it is measured on,
    for the range tested to be told from; all of its experiment if not given. added: what was added after a look at the
    results, and why, or nothing.
    """

    id: str
    statement: str
    models: str
    experiment: str
    expected: Band
    measure: Measure
    block: Block
    says: str
    refutes: str
    rows: Rows | None = None
    added: str = ""

    def tested(self) -> Rows:
        return self.rows or rows_of(self.experiment)


@dataclass(frozen=True)
class Check:
    """What no correct code violates, whatever it is run on: every estimate lies in the band. Not a claim of a theorem
    about constructions, so it stands below the tables; scripts/report.py fails where it is violated."""

    id: str
    statement: str
    experiment: str
    expected: Band
    measure: Measure


@dataclass(frozen=True)
class Outcome:
    """A claim at one tier: its estimates with a word each, and the overall word (the worst of them). `claims`: how many
    of its block are judged, which the wide interval of a word for the claim is made for."""

    claim: Claim
    tier: str
    parts: Sequence[tuple[Measured, str]]
    status: str
    claims: int

    @property
    def deciding(self) -> tuple[Measured, str] | None:
        """The part that the status rests on: of those with the worst word the one furthest from the band's middle.

        Of a consistent claim with one bound, the part furthest towards the bound: the largest value answers whether all
        are at most 0.7, however wide the interval of another."""
        one_sided = isinf(self.claim.expected.low) or isinf(self.claim.expected.high)
        parts = self.parts if one_sided and self.status == CONSISTENT else self._worst()
        return max(parts, key=lambda part: self._distance(part[0]), default=None)

    def _worst(self) -> list[tuple[Measured, str]]:
        return [part for part in self.parts if part[1] == self.status]

    def _distance(self, part: Measured) -> float:
        """From the middle of the band, or past its one end."""
        band, value = self.claim.expected, part.estimate.value
        if isnan(value):
            return -inf
        if isinf(band.low):
            return value if isinf(band.high) else value - band.high
        return band.low - value if isinf(band.high) else abs(value - (band.low + band.high) / 2)


def measured(claim: Claim | Check, results: Results) -> list[Measured]:
    """What it measures on a tier's results, computed once."""
    if claim.id not in results.measured:
        results.measured[claim.id] = claim.measure(results)
    return results.measured[claim.id]


def evaluate(claims: Sequence[Claim], results: Results) -> dict[str, Outcome]:
    """Every claim by its id: measured and judged setting by setting, among the claims of its block that are judged."""
    judged = [claim.block for claim in claims if _is_judged(claim, measured(claim, results))]
    return {claim.id: _outcome(claim, results, max(judged.count(claim.block), 1)) for claim in claims}


def _is_judged(claim: Claim, parts: Sequence[Measured]) -> bool:
    """Whether the claim's word rests on an interval, so that chance alone could give it."""
    return claim.expected.decides and any(not (part.estimate.exact or isnan(part.estimate.low)) for part in parts)


def _outcome(claim: Claim, results: Results, claims: int) -> Outcome:
    parts = [(part, status(part, claim.expected, claim.block, claims)) for part in measured(claim, results)]
    return Outcome(claim, results.tier, parts, overall(word for _, word in parts), claims)


HOLDS, VIOLATED = "holds", "violated"


def checked(check: Check, results: Results) -> str:
    """Holds, violated, not run, or not fitted where a value is missing."""
    parts = measured(check, results)
    values = [part.estimate.value for part in parts]
    if any(value < check.expected.low or value > check.expected.high for value in values):
        return VIOLATED
    if any(isnan(value) for value in values):
        return NOT_FITTED
    return HOLDS if parts else NOT_RUN
