"""Our own targets against every other construction."""

from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.topics.league import measures
from attention_coresets.analysis.topics.league import standings as league
from attention_coresets.analysis.topics.league.tolerances import BANDS


def _league(model: str, ours: str) -> tuple[Claim, ...]:
    statement = (
        f"League on a fresh seed: {ours} errs by at most 0.7 times what the best other"
        f" {'construction of any model' if model == 'free' else f'{model} construction'} errs by, found cell by cell"
    )
    unseen = f"{statement}; families not used while it was developed"
    further = f"{unseen}, more dimensions and another seed, added after the former had left the free model open"
    name = f"league_{model}" if ours == league.our_arm(model) else f"league_{ours}"
    band = BANDS["league"]
    every = measures.advantage(model, ours=ours)
    own = measures.advantage(model, league.UNSEEN, ours=ours)
    more = measures.advantage(model, experiment=league.MORE, ours=ours)
    return (
        Claim(name, statement, model, league.EXPERIMENT, band, every),
        Claim(f"{name}_unseen", unseen, model, league.EXPERIMENT, band, own),
        Claim(f"{name}_unseen_more", further, model, league.MORE, band, more),
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
    ),
)
