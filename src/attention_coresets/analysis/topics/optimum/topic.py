"""What this question adds to the study: its sections, and its claims, words and figures by name."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.optimum import claims, prose, tables
from attention_coresets.analysis.topics.optimum.measures import EXPERIMENT

SECTIONS: tuple[Section, ...] = (
    Section(
        EXPERIMENT,
        "Exact optima",
        "Mixed-integer programming finds the best subset of each size; branch and bound encloses its error.",
        tables.sizes_table,
    ),
)

TOPIC = Topic(
    kind="exact numbers",
    claims=claims.CLAIMS,
    sections=SECTIONS,
    questions=(
        Question(
            "How far is the walk from the best coreset of a tiny cache?",
            "its error is {optimum_walk} times as large",
            ("optimum_walk",),
        ),
    ),
    checks=claims.CHECKS,
    headline=(prose.walk,),
    sentences={"optimum_sizes": prose.optimum_sizes},
)
