"""Our own targets against every other construction."""

from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.league import measures as ours
from attention_coresets.analysis.topics.league import standings as league
from attention_coresets.analysis.topics.league.tolerances import BANDS


def _league(model: str) -> tuple[Claim, ...]:
    statement = (
        f"League on a fresh seed: {league.our_arm(model)} errs by at most 0.7 times what the best other"
        f" {'construction of any model' if model == 'free' else f'{model} construction'} errs by, found cell by cell"
    )
    unseen = f"{statement}; families not used while it was developed"
    further = f"{unseen}, more dimensions and another seed, added after the former had left the free model open"
    more = ours.advantage(model, experiment=league.MORE)
    name, band = f"league_{model}", "league"
    return (
        Claim(name, statement, model, league.EXPERIMENT, BANDS[band], ours.advantage(model)),
        Claim(f"{name}_unseen", unseen, model, league.EXPERIMENT, BANDS[band], ours.advantage(model, league.UNSEEN)),
        Claim(f"{name}_unseen_more", further, model, league.MORE, BANDS[band], more),
    )


CLAIMS: tuple[Claim, ...] = (
    *(claim for model in league.MODELS for claim in _league(model)),
    Claim(
        "minimax_ceiling",
        "Our free construction is better by proven ceilings too, not only to the ascent that it is made against:"
        " certificate over that of the walk with kernel swaps and refitted weights",
        "free",
        "ablation",
        BANDS["minimax_ceiling"],
        ours.ceiling_ratio("minimax_free", "walk_free_kernel_swaps"),
    ),
)
