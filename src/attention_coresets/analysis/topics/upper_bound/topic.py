"""What this question adds to the study: its sections, and its claims and words by name."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.upper_bound import claims, prose, tables
from attention_coresets.analysis.topics.upper_bound.figures import upper_bound
from attention_coresets.analysis.topics.upper_bound.measures import EXPERIMENT

SECTIONS: tuple[Section, ...] = (
    Section(
        EXPERIMENT,
        "The constant of every row",
        "A test that the upper bound could fail: the largest m·err/(√d e^(ρσ)) of the tilted walk over all rows,"
        " also with keys off the sphere and with biased logits.",
        tables.numbers,
    ),
)

TOPIC = Topic(
    kind="theory",
    claims=claims.CLAIMS,
    checks=claims.CHECKS,
    sections=SECTIONS,
    questions=(
        Question(
            "Is the constant of the upper bound small on every cache tried?",
            "m·err/(√d e^(ρσ)) is at most {constant_sigma}",
            ("constant_sigma",),
        ),
    ),
    figures={"upper_bound": (EXPERIMENT, upper_bound)},
    headline=(prose.constant,),
    tables={"upper_bound": tables.by_family},
)
