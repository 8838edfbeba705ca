"""The few numbers of README's first page, one a sentence, each as paper_repro.md has it, and what we had aimed at."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from attention_coresets.analysis.parts.block import OWN
from attention_coresets.analysis.parts.markdown import interval, number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.topic import Words
from attention_coresets.analysis.parts.wording import code, listed
from attention_coresets.analysis.report.claims_page import value
from attention_coresets.analysis.report.decided import decided, violated
from attention_coresets.analysis.stats.frames import column
from attention_coresets.analysis.topics.contents import CHECKS
from attention_coresets.analysis.topics.league.standings import EXPERIMENT as LEAGUE_EXPERIMENT
from attention_coresets.analysis.topics.league.standings import against_best

# claims on our own target, each with our best arm of a model
LEAGUE = {"league_portfolio_unweighted": "unweighted", "league_portfolio_tilted": "tilted", "league_free": "free"}


def verdicts(results: Results) -> str:
    """How many claims there are, how many have each verdict, and whether the code is as it should be: "57 claims: 43
    descriptive and 14 not run; 7 checks of the code, none violated"."""
    outcomes = decided(results)
    found = Counter(outcome.status for outcome in outcomes.values())
    wrong = violated(results)
    checks = f"{len(CHECKS)} checks of the code, {code(wrong) if wrong else 'none'} violated"
    words = listed(f"{count} {status}" for status, count in found.most_common())
    return f"{len(outcomes)} claims: {words}; {checks}"


def worst_of(*claims: str) -> Callable[[Results], str]:
    """A block with the value that decides the claim, and its interval; of several claims the largest value."""

    def block(results: Results) -> str:
        outcomes = decided(results)
        parts = [outcomes[claim].deciding for claim in claims]
        found = [part for part, _ in filter(None, parts) if part.estimate.caches]
        return value(max(found, key=lambda part: part.estimate.value)) if found else ""

    return block


def own_target(results: Results) -> str:
    """Our construction over the best other of each cell, model by model, and where the target is met."""
    outcomes = decided(results)
    known = {LEAGUE[name]: outcome for name, outcome in outcomes.items() if name in LEAGUE and outcome.parts}
    if not known:
        return ""
    words = [f"{interval(outcome.parts[0][0].estimate)} ({model})" for model, outcome in known.items()]
    met = [model for model, outcome in known.items() if outcome.status == OWN.best]
    where = f"met in the model {code(met)}" if met else "met in no model"
    target = f"the target ({outcomes['league_free'].claim.expected}; each first made wider, for many claims)"
    return f"{listed(words)}; {target} is {where}"


def median_setting(results: Results) -> str:
    """Our free construction over the best other, in the median setting of the league: a mean of logarithms hangs on the
    settings where ours is nearly exact."""
    cells = against_best(results.rows(LEAGUE_EXPERIMENT), "free")
    return number(float(np.exp(np.median(column(cells, "log_ratio"))))) if len(cells) else ""


FOUND: dict[str, Words] = {
    "found_verdicts": verdicts,
    "found_constant": worst_of("constant_sigma"),
    "found_beta": worst_of("beta_bound"),
    "found_league_free": worst_of("league_free"),
    "found_league_median": median_setting,
    "found_league_fixed": worst_of("league_portfolio_tilted"),
    "found_loss": worst_of("real_loss_8"),
    "found_facts": worst_of("facts_8"),
    "found_facts_long": worst_of("lengths_facts"),
    "own_target": own_target,
}
