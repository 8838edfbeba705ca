"""Walks that round fractional signs to +-1 with little discrepancy. They know no coresets.

The Gram-Schmidt walk goes on a Gram matrix or on features; other walks go pair by pair.
"""
