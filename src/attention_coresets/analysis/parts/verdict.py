"""What a claim is, and how one is decided on a tier's results."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isinf, isnan

from attention_coresets.analysis.parts.band import Band
from attention_coresets.analysis.parts.measured import Measure, Measured
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.status import ORDER, overall, status


@dataclass(frozen=True)
class Claim:
    """One line of paper_repro.md. `models`: the coreset models it speaks of; `expected`: what it allows."""

    id: str
    statement: str
    models: str
    experiment: str
    expected: Band
    measure: Measure

    def command(self, tier: str) -> str:
        return f"python scripts/sweep.py experiment={self.experiment} tier={tier}"


@dataclass(frozen=True)
class Outcome:
    """A claim at one tier: its estimates with a status each, and the overall status word (the worst of them)."""

    claim: Claim
    tier: str
    parts: Sequence[tuple[Measured, str]]
    status: str

    @property
    def deciding(self) -> tuple[Measured, str] | None:
        """The part that the status rests on: of those with the worst status the one furthest from the band's middle."""
        return max(self.parts, key=lambda part: (ORDER.index(part[1]), self._distance(part[0])), default=None)

    def _distance(self, part: Measured) -> float:
        """From the middle of the band, or past its one end."""
        band, value = self.claim.expected, part.estimate.value
        if isnan(value):
            return -inf
        if isinf(band.low):
            return value - band.high
        return band.low - value if isinf(band.high) else abs(value - (band.low + band.high) / 2)


def evaluate(claim: Claim, results: Results) -> Outcome:
    """Measure a claim on a tier's results, once, and apply the status rule, setting by setting."""
    if claim not in results.measured:
        parts = [(part, status(part.estimate, claim.expected)) for part in claim.measure(results)]
        results.measured[claim] = Outcome(claim, results.tier, parts, overall(word for _, word in parts))
    return results.measured[claim]
