"""Finds the best possible coreset of a tiny cache, with a proof."""
