"""What this question adds to the study: its section, its claims and its figure."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.facts import claims, figures, prose, tables
from attention_coresets.analysis.topics.facts.measures import FACTS

SECTIONS: tuple[Section, ...] = (
    Section(
        FACTS,
        "Facts that a compressed cache keeps",
        "Facts that nothing has asked for are planted in a text; its cache is compressed, and they are asked for then."
        " One budget for all heads, spent by what a replay of the text looks at, beside published rules.",
        tables.facts,
    ),
)

TOPIC = Topic(
    kind="a real model",
    claims=claims.CLAIMS,
    sections=SECTIONS,
    questions=(
        Question(
            "Does a compressed cache keep facts that nothing has asked for yet?",
            "{facts_8} of those that the full cache finds, at 1/8",
            tuple(claim.id for claim in claims.CLAIMS),
        ),
    ),
    figures={"real_tasks": (FACTS, figures.facts)},
    sentences={"real_tasks_kept": prose.kept},
    tables={"real_tasks": tables.facts, "real_tasks_costs": tables.costs},
)
