"""Walks that round fractional signs to +-1 with little discrepancy: the Gram-Schmidt walk on a Gram matrix or on
features, and walks pair by pair. They know no coresets.
"""
