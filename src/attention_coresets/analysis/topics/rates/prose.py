"""Sentences with numbers on rates: for the headline, and what contradicted expectations."""

from attention_coresets.analysis.parts.markdown import interval
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.wording import claimed, code, span
from attention_coresets.analysis.topics.rates.claims import CLAIMS, FAMILIES
from attention_coresets.analysis.topics.rates.measures import error_at
from attention_coresets.analysis.topics.rates.tolerances import BANDS


def rate(results: Results) -> str:
    """γ of the tilted walk and of uniform subsets."""
    walk, uniform = claimed(CLAIMS, results, "gamma_walk_tilted"), claimed(CLAIMS, results, "gamma_uniform")
    if not walk or not uniform:
        return ""
    return (
        f"**Rate in ε** (clusters): the size is like ε^−γ with γ = {span(walk)} for the tilted Gram–Schmidt walk"
        f" (tilted model) and {span(uniform)} for uniform subsets (unweighted); theory says 1 and 2."
    )


def model_matters(results: Results) -> str:
    """Errors of three arms on antipodal keys, where the coreset model decides."""
    names = {"walk_tilted": "the tilted walk", "walk_unweighted": "the unweighted walk", "uniform": "uniform subsets"}
    found = {arm: error_at("constant", arm, "antipodal", n=2048, d=8, rho=3.0, size=512)(results) for arm in names}
    if not found["walk_tilted"] or not found["uniform"]:
        return ""
    words = [f"{interval(found[arm][0].estimate)} for {name}" for arm, name in names.items() if found[arm]]
    return (
        "**The model matters** (antipodal keys, random values, ρ = 3, 512 of 2048 tokens, d = 8): error"
        f" {', '.join(words)}; only the first is a tilted coreset."
    )


def below_the_rate(results: Results) -> str:
    """The families whose exponent lies below the bound's, with its interval."""
    found = {family: claimed(CLAIMS, results, f"beta_walk_tilted_{family}") for family in FAMILIES}
    below = [family for family in found if found[family] and found[family][0].estimate.high < BANDS["beta"].high]
    if not below:
        return ""
    return (
        f"On {code(below)} the tilted walk's size grows more slowly than e^(ρσ), with the 95 % interval of β below"
        f" 1: {span([found[f][0] for f in below])}. The bound is for all caches; these are easier."
    )


def draws_in_d(results: Results) -> str:
    found = _alphas(results, "uniform", below=0.0)
    return f"Uniform subsets get better, not worse, as d grows: {found}." if found else ""


def walk_in_d(results: Results) -> str:
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
