"""What this question adds to the study: its sections, and its claims, words and figures by name."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.hardness import claims, figures, prose, tables
from attention_coresets.analysis.topics.hardness.measures import EXPERIMENT

SECTIONS: tuple[Section, ...] = (
    Section(
        EXPERIMENT,
        "The search for hard caches",
        "Gradient steps on unit keys and values make a cache harder: at m = n/2 they raise the constant m·err/(√d"
        " e^x) of the best of all subsets, or of the tilted walk. The upper bound would be refuted by caches on"
        " which the best tilted subset's constant, with x = ρσ, grows without limit in d, ρ or 1/ε, faster than"
        " the √log(2 + ρσ) that the proof leaves. Searches at n ≤ 20 can neither show nor exclude such growth."
        " They show how large the constant is at least, on caches that anyone can make again from the cell's"
        " configuration. Each best subset is proven to be best for its cache. That no cache is harder is not"
        " proven: the steps end in local maxima.",
        tables.constants,
    ),
)

TOPIC = Topic(
    kind="theory",
    claims=claims.CLAIMS,
    sections=SECTIONS,
    questions=(
        Question(
            "Are there caches harder than signed clusters?",
            "among tiny ones: there m·err/(√d e^ρ) of the best subset is {hardness_found}, on signed clusters 0.264",
            ("hardness_found", "hardness_ceiling"),
        ),
    ),
    figures={"hardness": (EXPERIMENT, figures.hardness)},
    headline=(prose.largest,),
)
