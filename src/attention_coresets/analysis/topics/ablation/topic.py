"""What this question adds to the study: its sections, and its claims, words and figures by name."""

from attention_coresets.analysis.parts.topic import Section, Topic
from attention_coresets.analysis.topics.ablation import claims, figures, prose, tables

SECTIONS: tuple[Section, ...] = (
    Section(
        "ablation",
        "Balancing rules × recursion × refinement × kernel scale × model",
        "Every arm on the same caches. At n = 1024 the rounds of Compress++ are those of Compress(3): four buckets,"
        " then one.",
        tables.ablation,
    ),
)

TOPIC = Topic(
    kind="constructions",
    claims=claims.CLAIMS,
    sections=SECTIONS,
    figures={
        "ablation": ("ablation", figures.ablation),
    },
    surprises=(prose.wider_kernel,),
)
