"""Reference bounds: approximations of attention that are no log-weighted subset, evaluated beside the coresets.

Each is made like a coreset, ``make(cache, size, rho, generator)``, and answers ``attend(queries)``; `worst_of` searches
the worst query of anything that does.
"""

from reference.refitted_values import RefittedAttention, RefittedValues
from reference.wildcat import SignedAttention, WildCat
from reference.worst_approximation import WorstFound, worst_of

__all__ = ["RefittedAttention", "RefittedValues", "SignedAttention", "WildCat", "WorstFound", "worst_of"]
