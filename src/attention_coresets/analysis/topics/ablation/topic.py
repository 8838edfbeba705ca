"""What this question adds to the study: its sections, and its claims, words and figures by name."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.ablation import claims, figures, prose, tables

SECTIONS: tuple[Section, ...] = (
    Section(
        "ablation",
        "Variants of the walk: rule, recursion, refinement, kernel scale, model",
        "All arms on the same caches. At n = 1024 Compress++ halves as Compress(3) does: four buckets, then one.",
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
            "it errs by {ablation} times the error of the best",
            ("ablation",),
            "the same walk errs less with a wider kernel than the one in the proof.",
        ),
    ),
    figures={
        "ablation": ("ablation", figures.ablation),
    },
    surprises=(prose.wider_kernel,),
)
