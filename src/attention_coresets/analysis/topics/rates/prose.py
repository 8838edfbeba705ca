"""Sentences of the pages with numbers from synthetic caches: what contradicted expectations, limits, times."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from attention_coresets.analysis.parts.markdown import interval, number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.status import REPRODUCED
from attention_coresets.analysis.parts.verdict import Claim, evaluate
from attention_coresets.analysis.parts.wording import between, claimed, code, extremes, listed, span
from attention_coresets.analysis.stats.estimates import paired_ratio
from attention_coresets.analysis.stats.frames import column, distinct, groups
from attention_coresets.analysis.topics.league import standings as league
from attention_coresets.analysis.topics.league.claims import CLAIMS as LEAGUE
from attention_coresets.analysis.topics.league.tolerances import BANDS as LEAGUE_BANDS
from attention_coresets.analysis.topics.optimum import measures as optimum
from attention_coresets.analysis.topics.rates.claims import CLAIMS, FAMILIES
from attention_coresets.analysis.topics.rates.tolerances import BANDS

WIDER = "walk_tilted_scale_inv_sqrt_d"  # the walk with a² = 1/√d


def surprises(results: Results) -> str:
    """What contradicted expectations, a bullet each; what was not measured, or did not contradict, is left out."""
    found = [make(results) for make in (_below_the_rate, _draws_in_d, _walk_in_d, _wider_kernel, _better_rules)]
    return "\n".join(f"- {sentence}" for sentence in found if sentence)


def _below_the_rate(results: Results) -> str:
    """The families whose exponent lies below the claim's tolerance, with its interval."""
    found = {family: claimed(CLAIMS, results, f"beta_walk_tilted_{family}") for family in FAMILIES}
    below = [family for family in found if found[family] and found[family][0].estimate.high < BANDS["beta"].low]
    if not below:
        return ""
    return (
        f"On {code(below)} the tilted walk needs *less* than e^(ρσ), with β = {span([found[f][0] for f in below])} in"
        " place of 1: the bound is a bound, and benign families sit below it."
    )


def _draws_in_d(results: Results) -> str:
    found = _alphas(results, "uniform", below=0.0)
    return f"Uniform subsets get better, not worse, as d grows: {found}." if found else ""


def _walk_in_d(results: Results) -> str:
    found = _alphas(results, "walk_tilted", below=0.5)
    return f"The tilted walk's size grows with d more slowly than √d: {found}." if found else ""


def _alphas(results: Results, arm: str, below: float) -> str:
    """ "α = 0.36 [0.33, 0.39] on `sphere`": the families where the whole interval lies below a value."""
    found = {family: claimed(CLAIMS, results, f"alpha_{arm}_{family}") for family in ("sphere", "clusters")}
    return ", ".join(
        f"α = {interval(part.estimate)} on `{family}` ({part.setting})"
        for family, mine in found.items()
        for part in mine
        if part.estimate.high < below
    )


def _wider_kernel(results: Results) -> str:
    rows = results.rows("ablation")
    ratios = [paired_ratio(family, WIDER, "walk_tilted") for _, family in groups(rows, ["cache"])]
    ratios = [ratio for ratio in ratios if ratio.caches]
    better = sum(ratio.high < 1 for ratio in ratios)
    if not better:
        return ""
    return (
        "A smaller kernel scale (a wider kernel), a² = 1/√d in place of ρ/σ, makes the tilted walk better on"
        f" {better} of the ablation's {len(ratios)} families, its error {extremes(ratios)} times as large: the scale"
        " from the proof is not the best in practice."
    )


def _better_rules(results: Results) -> str:
    """In how many families of the league herding and rules with kernel swaps err less than the walk in the mean."""
    errors = league.standings(results.rows(league.EXPERIMENT), "tilted").errors
    if league.REFERENCE not in errors:
        return ""
    ratios = pd.DataFrame(errors.sub(column(errors, league.REFERENCE), axis=0).groupby("cache").mean())
    counts = {str(arm): float((column(ratios, str(arm)) < 0).sum()) for arm in errors}
    herding = {arm: n for arm, n in counts.items() if arm.startswith("herding")}
    swaps = {arm: n for arm, n in counts.items() if arm.endswith("kernel_swaps")}
    words = [f"{code(herding)} on {between(herding.values())}"] if herding else []
    words += [f"the {len(swaps)} rules followed by kernel swaps on {between(swaps.values())}"] if swaps else []
    if not words:
        return ""
    return (
        "The walk has the proof, but not the least error. Among tilted coresets, on the league's"
        f" {len(ratios)} families, others err less in the mean: {listed(words)}."
    )


def own_target(results: Results) -> str:
    """Our construction over the best other of each cell, model by model, and where the target is met."""
    found = {model: evaluate(_league(model), results) for model in league.MODELS}
    known = {model: outcome for model, outcome in found.items() if outcome.parts}
    if not known:
        return ""
    words = [f"{interval(outcome.parts[0][0].estimate)} ({model})" for model, outcome in known.items()]
    met = [model for model, outcome in known.items() if outcome.status == REPRODUCED]
    where = f"met in the model {code(met)}" if met else "met in no model"
    return f"{listed(words)}; the ratio set out for ({LEAGUE_BANDS['league']}) is {where}"


def _league(model: str) -> Claim:
    return next(claim for claim in LEAGUE if claim.id == f"league_{model}")


def optimum_sizes(results: Results) -> str:
    """The sizes of the caches whose optima were found: "n = 8 and 12"."""
    rows = results.rows(optimum.EXPERIMENT)
    return f"n = {listed(distinct(rows, 'n'))}" if len(rows) else ""


def hours(results: Results) -> str:
    """Wall clock of all constructions and worst queries, one after the other; cells that experiments share once, and of
    a language model one of its heads."""
    rows = results.table.drop_duplicates(["cell", "size", "head"])
    seconds = column(rows, "seconds_construct") + column(rows, "seconds_adversary")
    return number(float(np.nansum(seconds)) / 3600)


SYNTHETIC: dict[str, Callable[[Results], str]] = {
    "surprises": surprises,
    "own_target": own_target,
    "optimum_sizes": optimum_sizes,
    "hours": hours,
}
