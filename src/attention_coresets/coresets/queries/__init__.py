"""Constructions on a model's own queries."""
