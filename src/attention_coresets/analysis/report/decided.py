"""Every claim decided and every check of the code made, on one tier's results."""

from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.verdict import VIOLATED, Outcome, checked, evaluate
from attention_coresets.analysis.topics.contents import CHECKS, CLAIMS


def decided(results: Results) -> dict[str, Outcome]:
    """All claims by their ids, each judged among those of its block."""
    return evaluate(CLAIMS, results)


def violated(results: Results) -> list[str]:
    """The checks of the code that do not hold, by their ids."""
    return [check.id for check in CHECKS if checked(check, results) == VIOLATED]
