"""Constructions that balance signs: base.py has their type, and each rule a file.

recursion.py and buckets.py lead from n tokens to the size asked; refinement.py is what follows.
"""
