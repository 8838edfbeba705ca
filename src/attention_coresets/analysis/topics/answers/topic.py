"""What this question adds to the study: its sections, its claims and its tables."""

from attention_coresets.analysis.parts.topic import Question, Section, Topic
from attention_coresets.analysis.topics.answers import claims, tables
from attention_coresets.analysis.topics.answers.measures import LENGTHS, PROBED

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
            "In the longest texts all rules that replay lose facts: what lies far back is repeated less surely, we"
            " suppose. KVzip's maximum keeps lists whole; half of our budget goes by a mean square. Few questions'"
            " settings miss, which chance alone can cause.",
        ),
    ),
    tables={"real_probes": tables.probes, "real_lengths": tables.lengths},
)
