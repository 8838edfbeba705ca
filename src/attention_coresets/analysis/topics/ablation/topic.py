"""What this question adds to the study: its sections, and its claims, words and figures by name."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
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
    questions=(
        Question(
            "Is the Gram–Schmidt walk as good as any balancing rule?",
            "{ablation} times the error of the best",
            ("ablation",),
            "a wider kernel than the proof's makes the same walk better on every family: the scale from the proof is"
            " not the best in practice.",
        ),
    ),
    figures={
        "ablation": ("ablation", figures.ablation),
    },
    surprises=(prose.wider_kernel,),
)
