"""Parts of scripts/mutate.py: the mutants, the tests that reach each, and a run of them."""
