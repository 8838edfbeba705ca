"""Attention coresets: small subsets of a KV cache that answer every query of norm at most rho almost as the whole
does.
"""

import torch as _torch

from attention_coresets import models as _models  # noqa: F401  (registers the family "model")
from attention_coresets.adversary import Enclosure as _Enclosure
from attention_coresets.adversary import WorstQuery, structured_worst, worst_query
from attention_coresets.attention import Cache, Coreset, WeightedCache, attend, attention_error
from attention_coresets.bodies import QueryBody, ellipsoid, minimum_ellipsoid
from attention_coresets.caches import CACHES, make_cache, register_cache
from attention_coresets.coresets import (
    CORESETS,
    Construction,
    HeldCoreset,
    Request,
    Stream,
    check_construction,
    make_coreset,
    register_construction,
)
from attention_coresets.finding import Found, find_coreset
from attention_coresets.theory import Tilt, tilt

# torch.load takes these, as it is: its default refuses classes that it was not told of
_torch.serialization.add_safe_globals(
    [Cache, Coreset, Found, HeldCoreset, QueryBody, Tilt, WeightedCache, WorstQuery, _Enclosure]
)

__all__ = [
    "CACHES",
    "CORESETS",
    "Cache",
    "Construction",
    "Coreset",
    "Found",
    "HeldCoreset",
    "QueryBody",
    "Request",
    "Stream",
    "Tilt",
    "WeightedCache",
    "WorstQuery",
    "attend",
    "attention_error",
    "check_construction",
    "ellipsoid",
    "find_coreset",
    "make_cache",
    "make_coreset",
    "minimum_ellipsoid",
    "register_cache",
    "register_construction",
    "structured_worst",
    "tilt",
    "worst_query",
]
