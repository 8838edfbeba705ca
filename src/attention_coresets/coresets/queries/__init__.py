"""Constructions that use the queries a model asks."""
