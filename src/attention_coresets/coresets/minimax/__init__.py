"""This project's own refinement: changes tokens and weights against the worst queries found, in rounds
(docs/minimax.md).
"""
