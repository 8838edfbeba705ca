"""The few numbers of README's first page: one a sentence, each as paper_repro.md has it in its table of claims."""

from collections import Counter
from collections.abc import Callable

from attention_coresets.analysis.parts.markdown import interval, number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.topic import Words
from attention_coresets.analysis.parts.verdict import evaluate
from attention_coresets.analysis.parts.wording import listed
from attention_coresets.analysis.stats.estimates import Estimate
from attention_coresets.analysis.topics.contents import CLAIMS


def verdicts(results: Results) -> str:
    """How many claims there are, and how many of them have each status: "64 claims: 43 reproduced and 21 not run"."""
    found = Counter(evaluate(claim, results).status for claim in CLAIMS)
    return f"{len(CLAIMS)} claims: {listed(f'{count} {status}' for status, count in found.most_common())}"


def worst_of(*claims: str) -> Callable[[Results], str]:
    """A block with the value that decides the claim, and its interval; of several claims the largest value."""

    def block(results: Results) -> str:
        deciding = [evaluate(claim, results).deciding for claim in CLAIMS if claim.id in claims]
        found = [part.estimate for part, _ in filter(None, deciding) if part.estimate.caches]
        return _words(max(found, key=lambda estimate: estimate.value)) if found else ""

    return block


def _words(found: Estimate) -> str:
    """With the interval, unless that is the value itself, as it is of a least value."""
    return number(found.value) if found.low == found.high else interval(found)


FOUND: dict[str, Words] = {
    "found_verdicts": verdicts,
    "found_gamma": worst_of("gamma_walk_tilted"),
    "found_floor": worst_of("floor"),
    "found_beta": worst_of("beta_walk_tilted_antipodal"),
    "found_league_free": worst_of("league_free"),
    "found_league_fixed": worst_of("league_tilted", "league_unweighted"),
    "found_loss": worst_of("real_loss_8"),
}
