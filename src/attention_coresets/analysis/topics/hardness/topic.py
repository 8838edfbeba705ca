"""What this question adds to the study: its sections, and its claims, words and figures by name."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.hardness import claims, figures, prose, tables
from attention_coresets.analysis.topics.hardness.measures import EXPERIMENT

SECTIONS: tuple[Section, ...] = (
    Section(
        EXPERIMENT,
        "Caches sought to be hard",
        "Gradient steps on unit keys and values raise the constant m·err/(√d e^x) of what answers the cache at m = n/2:"
        " the best subset of all, or the tilted walk. The upper bound would be refuted by a family of caches on which"
        " the best tilted subset's constant with x = ρσ grows without limit as d, ρ or 1/ε do, faster than the"
        " √log(2 + ρσ) that the proof leaves. No search at n ≤ 20 can show such growth, nor rule it out: it finds how"
        " large the constant is at least, on caches that anyone can make again from the cell's configuration. A best"
        " subset is proven best for one cache; that no cache is harder is not, for the steps end on local maxima.",
        tables.constants,
    ),
)

TOPIC = Topic(
    kind="theory",
    claims=claims.CLAIMS,
    sections=SECTIONS,
    questions=(
        Question(
            "Are there caches harder than the known ones?",
            "yes, tiny ones: m·err/(√d e^ρ) of the best subset is {hardness_found}",
            ("hardness_found", "hardness_ceiling"),
        ),
    ),
    figures={"hardness": (EXPERIMENT, figures.hardness)},
    headline=(prose.largest,),
)
