"""The study's questions, a folder each; `contents` puts together what they hold.

A claim: its tolerance goes into the topic's tolerances.py before the experiment is run, its row into claims.py, and
what it measures, where none of the topic's measures will do, into measures.py. An exponent of a fitted law is measured
by `parts.exponents`. `parts.verdict.Claim` says what a row holds: its block, what the theorem says or we aimed at, what
would refute it, the rows it is measured on. paper_repro.md then shows it, in the table of its block and under its
experiment. The tolerance of a benign rate is what the bound allows, one-sided.

A check of the code, which no construction could violate: a `Check` in CHECKS of claims.py, named in topic.py.

A law to fit: a row in the topic's plans.py. scripts/fit.py then fits it.

A table, sentence or figure: a function of `Results` in the topic's tables.py, prose.py or figures.py, and its name in
topic.py, which says where it is shown. A section of paper_repro.md is a row there as well. A topic has only the files
it needs, and a folder in place of one that grew.

A topic: a folder with the question as its docstring and a topic.py, and a line in contents.py.

Topics do not import one another. Two exceptions, each one way: language_model uses the rivals, texts and shares of the
cache of real_heads, and a sentence of real_heads sets its constant beside that of rates. What holds several topics
against one another is in report/
"""
