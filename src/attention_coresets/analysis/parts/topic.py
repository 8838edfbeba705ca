"""What a topic is: questions with their claims, the laws fitted for them, and its part of every page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.verdict import Check, Claim
from attention_coresets.analysis.stats.plan import FitPlan

HEADS_FILE = "heads.parquet"  # what a figure needs that is of no experiment
Drawing = tuple[str, Callable[[Results], Figure]]  # the experiment a figure needs, and what draws it
Words = Callable[[Results], str]  # Markdown of a tier's results, empty where they do not say it
KINDS = ("theory", "constructions", "exact numbers", "a real model")  # of topics, in the order of the table of claims


@dataclass(frozen=True)
class Question:
    """A row of paper_repro.md's first page.

    answer: a sentence with `{id}` for the value that decides a claim. claims: all that belong to the question, by id.
    missed: why claims of it were missed or contradicted, as far as is known, in a sentence without numbers.
    """

    text: str
    answer: str
    claims: tuple[str, ...]
    missed: str = ""


@dataclass(frozen=True)
class Section:
    """An experiment's part of a tier's tables.md, and its place among the claims of paper_repro.md."""

    experiment: str
    title: str
    about: str
    numbers: Words


@dataclass(frozen=True)
class Topic:
    """All that one subject adds to the study.

    kind: one of KINDS; claims of a block are listed kind by kind.
    checks: of the code, told below the tables of claims.
    sections: one an experiment. questions: of paper_repro.md's first page; each claim belongs to one, of any topic.
    figures: by the name of their files.
    plans: laws that scripts/fit.py fits.
    headline, surprises: sentences of the summary in docs/findings.md, and of its list of what contradicted
        expectations.
    sentences, tables: blocks of pages by name, inside a line or on lines of their own.
    """

    kind: str
    claims: tuple[Claim, ...]
    sections: tuple[Section, ...]
    questions: tuple[Question, ...] = ()
    checks: tuple[Check, ...] = ()
    figures: Mapping[str, Drawing] = field(default_factory=dict)
    plans: tuple[FitPlan, ...] = ()
    headline: tuple[Words, ...] = ()
    surprises: tuple[Words, ...] = ()
    sentences: Mapping[str, Words] = field(default_factory=dict)
    tables: Mapping[str, Words] = field(default_factory=dict)
