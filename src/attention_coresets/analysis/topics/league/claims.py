"""Our own targets against every other construction."""

from attention_coresets.analysis.parts.block import OWN
from attention_coresets.analysis.parts.measured import Measure, Rows, rows_of
from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.league import certified, measures
from attention_coresets.analysis.topics.league import standings as league
from attention_coresets.analysis.topics.league.tolerances import BANDS

EXACT = (
    "caches on which some coreset is as good as exact are told by its error, as in the league; at first they were told"
    " by its certificate, which on antipodal caches is the rounding of its moments"
)
ADDED = "the whole claim: the league's own caches of these families had left the free model open"


def _league(model: str, ours: str) -> tuple[Claim, ...]:
    name = f"league_{model}" if ours == league.our_arm(model) else f"league_{ours}"
    unseen = {"cache": league.UNSEEN}
    statement = (
        f"{ours} errs by at most 0.7 times what the best other"
        f" {'construction of any model' if model == 'free' else f'{model} construction'} errs by, found cell by cell"
    )
    new = f"The same of {ours} on families not used while it was developed"
    further = f"{new}, at more dimensions and another seed"
    every = measures.advantage(model, ours=ours)
    own = measures.advantage(model, league.UNSEEN, ours=ours)
    more = measures.advantage(model, experiment=league.MORE, ours=ours)
    met_not = rows_of(league.EXPERIMENT, **unseen)
    return (
        _claim(name, statement, model, league.EXPERIMENT, every, rows_of(league.EXPERIMENT)),
        _claim(f"{name}_unseen", new, model, league.EXPERIMENT, own, met_not),
        _claim(f"{name}_unseen_more", further, model, league.MORE, more, rows_of(league.MORE), ADDED),
    )


def _claim(
    name: str, statement: str, model: str, experiment: str, measure: Measure, rows: Rows, added: str = ""
) -> Claim:
    return Claim(
        name,
        statement,
        model,
        experiment,
        BANDS["league"],
        measure,
        OWN,
        "a ratio of 0.7",
        "a mean ratio above 0.7; undecided where 0.8 is in the interval",
        rows,
        added,
    )


CLAIMS: tuple[Claim, ...] = (
    *(claim for model in league.MODELS for ours in league.our_arms(model) for claim in _league(model, ours)),
    Claim(
        "minimax_ceiling",
        "Our free construction is better by proven ceilings too, not only to the ascent that it is made against:"
        " certificate over that of the walk with kernel swaps and refitted weights",
        "free",
        "ablation",
        BANDS["minimax_ceiling"],
        measures.ceiling_ratio("minimax_free", "walk_free_kernel_swaps"),
        OWN,
        "no larger certificate than that of refitted weights, a guess",
        "a family whose median ratio is above 1",
        rows_of("ablation", arm=["minimax_free", "walk_free_kernel_swaps"]),
    ),
    Claim(
        "certificate_below",
        "Coresets made for the certificate have a smaller one than the best other arm's, found cache by cache, on each"
        " family at each rho",
        "free",
        certified.EXPERIMENT,
        BANDS["certificate_below"],
        certified.ratio(certified.CERTIFICATE, by=["cache", "rho"]),
        OWN,
        "a ratio below 1",
        "a family and rho whose mean ratio is above 1",
        rows_of(certified.EXPERIMENT),
        EXACT,
    ),
    Claim(
        "certificate_mean",
        "The same over all caches: at most 0.75 times the best other's",
        "free",
        certified.EXPERIMENT,
        BANDS["certificate_mean"],
        certified.ratio(certified.CERTIFICATE),
        OWN,
        "a ratio of 0.75",
        "a mean ratio above 0.75",
        rows_of(certified.EXPERIMENT),
        EXACT,
    ),
    Claim(
        "certificate_error",
        "They err by at most 1.1 times what the coreset errs by that they begin from",
        "free",
        certified.EXPERIMENT,
        BANDS["certificate_error"],
        certified.ratio(certified.ERROR, [certified.START]),
        OWN,
        "a ratio of 1.1",
        "a mean ratio above 1.1",
        rows_of(certified.EXPERIMENT, arm=[certified.OURS, certified.START]),
    ),
)
