"""Eviction heuristics in use for language models' caches: small scorers, no weights.

Each is a construction that may also take queries and positions of the model's text. Its class says which of the two it
needs (`needs_queries`, `needs_positions`), and by `moved` that it wants the queries carried on to after the cache
(base.py of the folder above). Definitions follow the papers and NVIDIA's kvpress.
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
