"""All that the topics hold, put together here and nowhere else."""

from attention_coresets.analysis.parts.verdict import Claim
from attention_coresets.analysis.stats.plan import FitPlan
from attention_coresets.analysis.topics.ablation import claims as ablation
from attention_coresets.analysis.topics.hard_instances import claims as hard_instances
from attention_coresets.analysis.topics.hard_instances import plans as hard_instances_plans
from attention_coresets.analysis.topics.language_model import claims as language_model
from attention_coresets.analysis.topics.league import claims as league
from attention_coresets.analysis.topics.optimum import claims as optimum
from attention_coresets.analysis.topics.rates import claims as rates
from attention_coresets.analysis.topics.rates import plans as rates_plans
from attention_coresets.analysis.topics.real_heads import claims as real_heads
from attention_coresets.analysis.topics.worst_case import claims as worst_case

_CLAIMS = (rates, hard_instances, ablation, league, worst_case, optimum, real_heads, language_model)
CLAIMS: tuple[Claim, ...] = tuple(claim for topic in _CLAIMS for claim in topic.CLAIMS)
PLANS: tuple[FitPlan, ...] = (*rates_plans.PLANS, *hard_instances_plans.PLANS)
