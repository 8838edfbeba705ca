"""Eviction heuristics in use for language models' caches: small scorers, no weights.

Each is a construction that also takes ``queries [*heads, group, b, d]``, those of the last b positions of the cache's
own text in order, and ``positions [*heads, n]`` of the tokens; its class says which of the two it needs, and by
``moved`` that it wants the queries carried on to the b positions after the cache. Definitions follow the papers and
NVIDIA's kvpress.
"""

from attention_coresets.coresets.eviction.curdkv import CurDKV
from attention_coresets.coresets.eviction.expected_attention import ExpectedAttention
from attention_coresets.coresets.eviction.h2o import H2O
from attention_coresets.coresets.eviction.keydiff import KeyDiff
from attention_coresets.coresets.eviction.knorm import Knorm
from attention_coresets.coresets.eviction.snapkv import SnapKV
from attention_coresets.coresets.eviction.streaming_llm import StreamingLLM
from attention_coresets.coresets.eviction.tova import TOVA

EVICTION: dict[str, type] = {
    "streaming_llm": StreamingLLM,
    "h2o": H2O,
    "snapkv": SnapKV,
    "tova": TOVA,
    "knorm": Knorm,
    "keydiff": KeyDiff,
    "expected_attention": ExpectedAttention,
    "curdkv": CurDKV,
}
