"""This project's own refinement: tokens and weights against the worst queries found, in rounds (docs/minimax.md)."""
