"""What this question adds to the study: its sections, and its claims, words and figures by name."""

from attention_coresets.analysis.parts.block import BENIGN
from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.rates import claims, plans, prose, tables
from attention_coresets.analysis.topics.rates.figures.constant import constant
from attention_coresets.analysis.topics.rates.figures.d_and_n import d_rate, n_independence
from attention_coresets.analysis.topics.rates.figures.error_vs_size import error_vs_size
from attention_coresets.analysis.topics.rates.figures.rho import rho_rate
from attention_coresets.analysis.topics.rates.luck import luck

SECTIONS: tuple[Section, ...] = (
    Section(
        "epsilon_rate",
        "Rate in ε",
        "How the size for an error ε grows as ε falls. Theory: like 1/ε for walks, like 1/ε² for random draws.",
        tables.laws("epsilon_rate"),
    ),
    Section(
        "d_rate",
        "Rate in d",
        "How the size for an error ε grows with d, over all d and between neighbouring d. No theorem says that"
        " this is a power law on benign caches. Sizes from 8d to n/4.",
        tables.laws("d_rate", "d_local"),
    ),
    Section(
        "rho_rate",
        "Rate in ρ",
        "β is the slope in the exponent x of the bound for the arm's coreset model: ρσ (tilted) or ρR"
        " (unweighted). The bound allows at most 1. The slope in ρ itself is descriptive, since σ depends on ρ."
        " Over all ρ and in two halves. Sizes from 8d to n/4.",
        tables.laws("rho_rate", "rho_halves", "rho_rate_plain"),
    ),
    Section(
        "constant",
        "The constant",
        "Medians of m·err/(√d e^(ρσ)), the bound's constant, family by family.",
        tables.constant,
    ),
    Section(
        "n_independence",
        "Independence of n",
        "By theory the size for an error ε does not grow with n.",
        tables.laws("n_independence"),
    ),
    Section(
        "luck",
        "Luck of the cache, luck of the construction",
        "Several coresets of each cache. The table splits the spread of log errors: one part lies between caches,"
        " the other between coresets of one cache.",
        luck,
    ),
)

TOPIC = Topic(
    kind="theory",
    claims=claims.CLAIMS,
    sections=SECTIONS,
    questions=(
        Question(
            "Does any family need more than the bound's rate in ρ?",
            "largest β of e^(βρσ): {beta_bound}; the bound has 1",
            ("beta_bound", "constant_issue"),
        ),
        Question(
            "How do sizes grow on caches that are not made to be hard?",
            "like ε^−γ: γ = {gamma_walk_tilted} for the tilted walk (bound: 1, for small ε), {gamma_uniform} for"
            " uniform draws",
            (
                *(claim.id for claim in claims.CLAIMS if claim.block is BENIGN),
                *("equal_keys_decay", "equal_keys_decay_uniform", "product_rho"),
            ),
        ),
    ),
    figures={
        "error_vs_size": ("epsilon_rate", error_vs_size),
        "d_rate": ("d_rate", d_rate),
        "rho_rate": ("rho_rate", rho_rate),
        "constant": ("constant", constant),
        "n_independence": ("n_independence", n_independence),
    },
    plans=plans.PLANS,
    headline=(prose.rate, prose.model_matters),
    surprises=(prose.below_the_rate, prose.draws_in_d, prose.walk_in_d),
    tables={"rates": tables.rates},
)
