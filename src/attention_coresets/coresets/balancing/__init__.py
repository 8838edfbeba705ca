"""Constructions that balance signs: base.py has their type, each rule a file; recursion and buckets lead from n tokens
to the size asked, refinement follows.
"""
