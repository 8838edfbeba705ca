"""Language models: capture of their caches, real heads, and models that run on coresets (serving/).

Makes the captured heads a family of caches: `make_cache("model", ...)`.
"""

from attention_coresets.caches import CACHES
from attention_coresets.models.captured import Model

CACHES["model"] = Model
