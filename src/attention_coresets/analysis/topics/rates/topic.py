"""What this question adds to the study: its sections, and its claims, words and figures by name."""

from attention_coresets.analysis.parts.topic import Section, Topic
from attention_coresets.analysis.topics.rates import claims, plans, prose, tables
from attention_coresets.analysis.topics.rates.figures.constant import constant
from attention_coresets.analysis.topics.rates.figures.d_and_n import d_rate, n_independence
from attention_coresets.analysis.topics.rates.figures.error_vs_size import error_vs_size
from attention_coresets.analysis.topics.rates.figures.rho import rho_rate

SECTIONS: tuple[Section, ...] = (
    Section(
        "epsilon_rate",
        "Rate in ε",
        "How the size for an error ε grows as ε falls: 1/ε for balanced signs, 1/ε² for draws.",
        tables.laws("epsilon_rate"),
    ),
    Section("d_rate", "Rate in d", "√d for balanced signs at fixed ρ and ε.", tables.laws("d_rate")),
    Section(
        "rho_rate",
        "Rate in ρ",
        "β is the slope in the arm's own exponent x, ρσ (tilted) or ρR (unweighted), where theory says 1; the slope in"
        " plain ρ is descriptive, since σ depends on ρ.",
        tables.laws("rho_rate", "rho_rate_plain"),
    ),
    Section("constant", "The constant", "The bound's constant over every family: medians.", tables.constant),
    Section(
        "n_independence",
        "Independence of n",
        "The size for an error ε does not grow with n.",
        tables.laws("n_independence"),
    ),
)

TOPIC = Topic(
    kind="theory",
    claims=claims.CLAIMS,
    sections=SECTIONS,
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
