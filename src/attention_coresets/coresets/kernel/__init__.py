"""The balancing kernel, and constructions and refinements that work on it directly: its law and Gram matrix, herding,
Frank-Wolfe, Nystrom weights, swaps, fitted weights.
"""
