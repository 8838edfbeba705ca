"""The best possible coreset of a tiny cache, proven."""
