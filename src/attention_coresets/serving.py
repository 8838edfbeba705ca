"""Models that run on coresets: the public door to `attention_coresets.models.serving`."""

from attention_coresets.models.serving import *  # noqa: F403
from attention_coresets.models.serving import __all__ as __all__
