"""Bounds the worst case from both sides: queries found by ascent, and certificates that no query exceeds."""

from attention_coresets.adversary.ascent import ascend, climb
from attention_coresets.adversary.certificate import CERTIFICATES, values_certificate
from attention_coresets.adversary.enclosure import Enclosure, branch_and_bound
from attention_coresets.adversary.kernel import kernel_certificate
from attention_coresets.adversary.structured import StructuredWorst, structured_error, structured_worst
from attention_coresets.adversary.taylor import taylor_certificate
from attention_coresets.adversary.worst import WorstQuery, worst_query

__all__ = [
    "CERTIFICATES",
    "Enclosure",
    "StructuredWorst",
    "WorstQuery",
    "ascend",
    "branch_and_bound",
    "climb",
    "kernel_certificate",
    "structured_error",
    "structured_worst",
    "taylor_certificate",
    "values_certificate",
    "worst_query",
]
