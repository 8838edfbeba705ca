"""What the measured tables say. Reads results only; needs numpy, scipy, pandas and matplotlib.

Rooms, each of which imports only from those before it:
stats: statistics that know no experiment.
parts: what a topic is made of (results as read, claims and their status, sections), and how numbers are written.
figures: what figures share (the arms' looks, axes, sizes as marks).
topics: a folder for each question, with its claims, tolerances, measures, tables, sentences and figures.
report: what puts topics together into paper_repro.md, the blocks of other pages, and the set of figures.
"""
