"""The figures of the hard instances and of the controls."""
