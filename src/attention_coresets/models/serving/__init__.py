"""Runs transformers' language models on coresets of their KV caches, and measures what that costs them.

Needs transformers (the `models` extra), which the rest of the package does without: import it from here.
"""

# ruff: noqa: E402
from attention_coresets.models.requirement import check_transformers

check_transformers()

from attention_coresets.models.serving.compression import Layout, compress
from attention_coresets.models.serving.context import Compressed, compressed
from attention_coresets.models.serving.evaluation import Agreement, agreement, continuation, losses
from attention_coresets.models.serving.layer import CoresetLayer, cache_bytes
from attention_coresets.models.serving.needle import Answer, Needle, ask, plant
from attention_coresets.models.serving.prefill import Prefilled, prefill

__all__ = [
    "Agreement",
    "Answer",
    "Compressed",
    "CoresetLayer",
    "Layout",
    "Needle",
    "Prefilled",
    "agreement",
    "ask",
    "cache_bytes",
    "compress",
    "compressed",
    "continuation",
    "losses",
    "plant",
    "prefill",
]
