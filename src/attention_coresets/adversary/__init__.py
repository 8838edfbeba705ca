"""The worst case from both sides: queries found by ascent, and certificates that no query exceeds."""

from attention_coresets.adversary.ascent import WorstQuery, worst_query
from attention_coresets.adversary.certificate import kernel_certificate

__all__ = ["WorstQuery", "kernel_certificate", "worst_query"]
