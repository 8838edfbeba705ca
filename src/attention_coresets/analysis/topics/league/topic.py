"""What this question adds to the study: its sections, and its claims, words and figures by name."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.league import certified, claims, figures, prose, tables
from attention_coresets.analysis.topics.league.standings import EXPERIMENT, MORE

SECTIONS: tuple[Section, ...] = (
    Section(
        EXPERIMENT,
        "League table",
        "Every construction on every synthetic family, a seed that was not used while ours was made. A cell is one"
        " family, d, ρ and m, an arm's error there the geometric mean over heads. Intervals resample caches: the cells"
        " of one family and d at all ρ together. The best other is picked cell by cell, after the fact, which favours"
        " it, among published rules as they are and with this project's tilt and combinations. Certificates are of"
        " other caches: of the ablation and of coresets made for their certificate. Construction times side by side are"
        " in docs/benchmarks.md.",
        tables.league_section,
    ),
    Section(
        MORE,
        "League table: the families not met, at more dimensions",
        "As the league, on the two families that were not looked at while our construction was made, six dimensions and"
        " another fresh seed: the league's own six caches of them leave the free model open. Run once, after that.",
        tables.unseen_section,
    ),
    Section(
        certified.EXPERIMENT,
        "Good and proven: coresets made for their certificate",
        "Certificates of six constructions at one size, each the least of all ceilings that apply. The best other is"
        " picked cache by cache, after the fact, which favours it; caches where some coreset errs by at most 1e-6, as"
        " good as exact, are left out. certificate_free_weights changes no token, certificate_free_fixed minimises the"
        " form of its start alone. The rule: docs/certificates.md.",
        certified.section,
    ),
)

TOPIC = Topic(
    kind="constructions",
    claims=claims.CLAIMS,
    sections=SECTIONS,
    questions=(
        Question(
            "Does our own construction beat every other by what we set out for?",
            "error over the best other's: free weights {league_free}, tilted {league_portfolio_tilted}, unweighted"
            " {league_portfolio_unweighted}",
            tuple(claim.id for claim in claims.CLAIMS if claim.id.startswith("league_")),
            "with weights fixed there is little left to choose but the tokens, and the best other is picked cell by"
            " cell afterwards, among rules that have this project's tilt and swaps too. Whether 0.7 can be had at all"
            " is open: no floor excludes it.",
        ),
        Question(
            "Are coresets made for their certificate provably better?",
            "certificate over the best other's: {certificate_mean}",
            ("certificate_mean", "certificate_below", "certificate_error", "minimax_ceiling"),
            "the order by proven ceilings is not the order by errors: minimax fits few moments, at the worst queries,"
            " and a kernel certificate pays for all.",
        ),
    ),
    figures={
        "league": (EXPERIMENT, figures.league_ranks),
        "league_map": (EXPERIMENT, figures.league_map),
    },
    headline=(prose.ahead,),
    surprises=(prose.better_rules,),
    tables={"league": tables.league_block},
)
