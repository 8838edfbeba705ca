"""Time, memory and error of what this package computes, beside its peers and the limits of the machine: see run.py."""
