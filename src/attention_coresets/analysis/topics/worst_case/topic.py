"""What this question adds to the study: its sections, and its claims, words and figures by name."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.worst_case import claims, figures, prose, tables
from attention_coresets.analysis.topics.worst_case.measures import JUDGED, SMALL

SECTIONS: tuple[Section, ...] = (
    Section(
        JUDGED,
        "How good the search for the worst query is",
        "Gradient ascent against branch and bound (d ≤ 4, a proven upper bound) and against the kernel"
        " certificate (docs/certificates.md).",
        tables.judged,
    ),
    Section(
        SMALL,
        "Ceilings on small caches",
        "Every certificate, branch and bound and the ascent on the same coresets: no two of these numbers may"
        " contradict each other.",
        tables.small,
    ),
)

TOPIC = Topic(
    kind="exact numbers",
    claims=claims.CLAIMS,
    sections=SECTIONS,
    questions=(
        Question(
            "How near is the worst error found to a proven ceiling?",
            "the ceiling is {ceiling_rho_1} times as large at ρ = 1, {ceiling_rho_2} times at ρ = 2",
            ("ceiling_rho_1", "ceiling_rho_2"),
        ),
    ),
    checks=claims.CHECKS,
    figures={
        "ceilings": (JUDGED, figures.ceilings),
    },
    headline=(prose.both_sides,),
)
