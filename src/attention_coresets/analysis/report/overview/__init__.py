"""Figures that hold the topics against one another."""
