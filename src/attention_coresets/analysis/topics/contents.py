"""All that the topics hold, put together here and nowhere else."""

from attention_coresets.analysis.parts.topic import KINDS, Question, Section, Topic
from attention_coresets.analysis.parts.verdict import Check, Claim
from attention_coresets.analysis.stats.plan import FitPlan
from attention_coresets.analysis.topics.ablation import topic as ablation
from attention_coresets.analysis.topics.answers import topic as answers
from attention_coresets.analysis.topics.facts import topic as facts
from attention_coresets.analysis.topics.hard_instances import topic as hard_instances
from attention_coresets.analysis.topics.hardness import topic as hardness
from attention_coresets.analysis.topics.head_sizes import topic as head_sizes
from attention_coresets.analysis.topics.joint_exponents import topic as joint_exponents
from attention_coresets.analysis.topics.language_model import topic as language_model
from attention_coresets.analysis.topics.league import topic as league
from attention_coresets.analysis.topics.optimum import topic as optimum
from attention_coresets.analysis.topics.rates import topic as rates
from attention_coresets.analysis.topics.real_heads import topic as real_heads
from attention_coresets.analysis.topics.upper_bound import topic as upper_bound
from attention_coresets.analysis.topics.worst_case import topic as worst_case

# in the order of the questions of paper_repro.md and of the sections of tables.md
TOPICS: tuple[Topic, ...] = (
    rates.TOPIC,
    upper_bound.TOPIC,
    joint_exponents.TOPIC,
    hard_instances.TOPIC,
    hardness.TOPIC,
    worst_case.TOPIC,
    optimum.TOPIC,
    ablation.TOPIC,
    league.TOPIC,
    real_heads.TOPIC,
    head_sizes.TOPIC,
    language_model.TOPIC,
    facts.TOPIC,
    answers.TOPIC,
)
CLAIMS: tuple[Claim, ...] = tuple(
    claim for topic in sorted(TOPICS, key=lambda topic: KINDS.index(topic.kind)) for claim in topic.claims
)
CHECKS: tuple[Check, ...] = tuple(check for topic in TOPICS for check in topic.checks)
QUESTIONS: tuple[Question, ...] = tuple(question for topic in TOPICS for question in topic.questions)
SECTIONS: tuple[Section, ...] = tuple(section for topic in TOPICS for section in topic.sections)
PLANS: tuple[FitPlan, ...] = tuple(plan for topic in TOPICS for plan in topic.plans)
