"""What this question adds to the study: its section, its law, its claim and its figure."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.head_sizes import claims, figures, plans, prose, tables
from attention_coresets.analysis.topics.head_sizes.plans import GEMMA, SIZES

TOPIC = Topic(
    kind="a real model",
    claims=claims.CLAIMS,
    sections=(
        Section(
            SIZES,
            "Sizes that heads need: SmolLM2-135M",
            "Every KV head, with the queries of a replay of its text: errors by size at the queries of another replay,"
            " asked for in words, and measures of the head that may tell them.",
            tables.section,
        ),
        Section(
            GEMMA,
            "Sizes that heads need: Gemma 3 270M",
            "The three heads with full attention of the second model, asked in the same way. No claim: three heads fit"
            " no law.",
            tables.gemma,
        ),
    ),
    questions=(
        Question(
            "Does a head need as many tokens as the total sensitivity of its queries says?",
            "slopes of the size in T and in 1/ε, predicted to be 1: the one further off is {real_sizes}",
            (SIZES,),
        ),
    ),
    figures={SIZES: (SIZES, figures.head_sizes)},
    plans=plans.PLANS,
    sentences={"real_sizes": prose.law, "real_sizes_second": prose.second},
    tables={"real_sizes_predictors": tables.predictors, "real_sizes_gemma": tables.gemma},
)
