"""The balancing kernel, and what works on it directly: its law and Gram matrix, herding, Frank-Wolfe, Nystrom weights,
swaps, fitted weights.
"""
