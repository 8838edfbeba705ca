"""What this question adds to the study: its sections, and its claims, words and figures by name."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.language_model import claims, figures, prose, tables
from attention_coresets.analysis.topics.language_model.measures import LANGUAGE

SECTIONS: tuple[Section, ...] = (
    Section(
        LANGUAGE,
        "A language model on coresets",
        "SmolLM2-135M reads a text. Coresets then replace the cache of every KV head, and the model predicts the"
        " tokens that follow.",
        tables.language,
    ),
)

TOPIC = Topic(
    kind="a real model",
    claims=claims.CLAIMS,
    sections=SECTIONS,
    questions=(
        Question(
            "Does a language model on such coresets predict better than with eviction heuristics?",
            "its loss less that with the best heuristic, at 1/8 of the cache: {real_loss_8} nats a token",
            ("real_loss_4", "real_loss_8"),
        ),
    ),
    figures={
        "real_language": (LANGUAGE, figures.real_language),
    },
    headline=(prose.headline,),
    sentences={
        "real_segments": prose.segments,
        "real_losses": prose.losses,
        "real_times": prose.construction_times,
        "real_facts": prose.facts,
    },
    tables={"real_language": tables.language},
)
