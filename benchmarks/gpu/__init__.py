"""What scripts/gpu.sh measures on a GPU, step by step; each step runs on the CPU too, at a tiny size.

A step is a module with `measure(tier, device)`, which yields rows, ratios and notes as soon as they are there.
`__main__` runs one, `journal` keeps what it found, `predicted` says what is expected where nothing was measured yet.
"""

PREFIX = "gpu "  # of the parts that the steps become among a machine's results
