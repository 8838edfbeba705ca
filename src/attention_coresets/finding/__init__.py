"""Finds the smallest coreset of a cache that is good enough: which construction, which size, what error."""

from attention_coresets.finding.find import Found, find_coreset
from attention_coresets.finding.heads import CANDIDATES, Tried

__all__ = ["CANDIDATES", "Found", "Tried", "find_coreset"]
