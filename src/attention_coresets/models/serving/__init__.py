"""Runs transformers' language models on coresets of their KV caches, and measures what that costs them.

Needs transformers (the `models` extra), which the rest of the package does without: import it from here.
"""

# ruff: noqa: E402
from attention_coresets.models.requirement import check_transformers

check_transformers()

from attention_coresets.models.serving.caches import branch, cache_bytes
from attention_coresets.models.serving.compression import compress
from attention_coresets.models.serving.context import Compressed, compressed
from attention_coresets.models.serving.evaluation import Agreement, agreement, continuation, losses
from attention_coresets.models.serving.keeping import keep
from attention_coresets.models.serving.layer import CoresetLayer
from attention_coresets.models.serving.layout import Layout
from attention_coresets.models.serving.needle import Answer, Needle, ask, plant
from attention_coresets.models.serving.prefill import Prefilled, prefill
from attention_coresets.models.serving.ragged import Ragged

__all__ = [
    "Agreement",
    "Answer",
    "Compressed",
    "CoresetLayer",
    "Layout",
    "Needle",
    "Prefilled",
    "Ragged",
    "agreement",
    "ask",
    "branch",
    "cache_bytes",
    "compress",
    "compressed",
    "continuation",
    "keep",
    "losses",
    "plant",
    "prefill",
]
