"""What this question adds to the study: its sections, its claims and its tables."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.answers import claims, tables
from attention_coresets.analysis.topics.answers.measures import LEAD, LENGTHS, PROBED, REPETITION

SECTIONS: tuple[Section, ...] = (
    Section(
        PROBED,
        "What a compressed cache still answers",
        "Numbers of eight cities, a list of keys with values, and places of the text to be quoted on: a small model"
        " gets most tokens of these answers right from its full cache. How many does it get right from a part of it?",
        tables.probes,
    ),
    Section(
        LENGTHS,
        "Other lengths, other shares",
        "The planted facts of `real_tasks` in texts of half and of twice the length, and at other shares.",
        tables.lengths,
    ),
    Section(
        LEAD,
        "Facts across chunks of a replay",
        "What a replay repeats first has nothing that it could go on from. In texts of 4096 tokens each planted fact"
        " stands across chunks, in texts of 2048 inside one. With a lead, as in the other experiments on facts, each"
        " chunk is repeated with the tokens before it.",
        tables.lead,
    ),
    Section(
        REPETITION,
        "A compressed cache says its text again",
        "Teacher-forced, chunk by chunk without a lead: nearly in-sample for every rule that replays.",
        tables.repetition,
    ),
)

TOPIC = Topic(
    kind="a real model",
    claims=claims.CLAIMS,
    sections=SECTIONS,
    questions=(
        Question(
            "Does SmolLM2-135M answer harder questions too, and on texts of other lengths?",
            "{answers_right} of the full cache's right tokens at 1/8; by length, at worst {lengths_facts} of its facts,"
            " with {lengths_kl} of a rule's divergence",
            tuple(claim.id for claim in claims.CLAIMS),
            "KVzip+ keeps a little more of lists than we do, and we do not know why. Few questions' settings"
            " miss, which chance alone can cause.",
        ),
    ),
    tables={
        "real_probes": tables.probes,
        "real_lengths": tables.lengths,
        "real_lead": tables.lead,
        "real_repetition": tables.repetition,
    },
)
