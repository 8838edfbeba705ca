"""What this question adds to the study: its section, its claims and its figure."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.facts import claims, figures, prose, tables
from attention_coresets.analysis.topics.facts.measures import ABLATION, FACTS, GEMMA

SECTIONS: tuple[Section, ...] = (
    Section(
        FACTS,
        "Facts that a compressed cache keeps",
        "Facts that nothing has asked for are planted in a text; its cache is compressed, and they are asked for then."
        " One budget for all heads, spent by what a replay of the text looks at, beside published rules.",
        tables.facts,
    ),
    Section(
        GEMMA,
        "Facts that a compressed cache keeps: Gemma 3 270M",
        "The same with a second model, whose every sixth layer has full attention, with one KV head: these are"
        " compressed, the others have sliding windows and are bounded already. Opt-in, under its own terms.",
        tables.gemma,
    ),
    Section(
        ABLATION,
        "Facts that a compressed cache keeps: one choice changed",
        "The construction of ours beside versions of it with one choice changed each. No claim: what each choice is"
        " worth.",
        tables.ablation,
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
            tuple(claim.id for claim in claims.CLAIMS if claim.experiment == FACTS),
        ),
        Question(
            "Does `replay_fit` move a second model's predictions less than published rules?",
            "on Gemma 3 270M, 1/8: {gemma_kl_ratio} times the divergence of the best unweighted rule;"
            " most facts are lost",
            ("gemma_kl_ratio",),
            "a likely reason: a replay asks Gemma's three heads for more tokens than are kept (`real_sizes_gemma`).",
        ),
    ),
    figures={"real_tasks": (FACTS, figures.facts)},
    sentences={"real_tasks_kept": prose.kept, "real_tasks_gemma_kept": prose.gemma},
    tables={
        "real_tasks": tables.facts,
        "real_tasks_gemma": tables.gemma,
        "real_tasks_costs": tables.costs,
        "real_ablation": tables.ablation,
    },
)
