"""All that the topics hold, put together here and nowhere else."""

from attention_coresets.analysis.stats.plan import FitPlan
from attention_coresets.analysis.topics.hard_instances import plans as hard_instances
from attention_coresets.analysis.topics.rates import plans as rates

PLANS: tuple[FitPlan, ...] = (*rates.PLANS, *hard_instances.PLANS)
