"""The balancing kernel, and what works on it directly: herding, Frank-Wolfe, Nystrom, swaps, fitted weights."""
