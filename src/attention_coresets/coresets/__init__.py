"""Coreset constructions: one a file, a frozen dataclass of parameters that is called with a cache.

base.py has their type, catalogue.py their names, and each folder one idea.
"""

from attention_coresets.coresets.base import Construction, Request
from attention_coresets.coresets.catalogue import CORESETS, make_coreset, register_construction
from attention_coresets.coresets.conformance import check_construction
from attention_coresets.coresets.stream import HeldCoreset, Stream

__all__ = [
    "CORESETS",
    "Construction",
    "HeldCoreset",
    "Request",
    "Stream",
    "check_construction",
    "make_coreset",
    "register_construction",
]
