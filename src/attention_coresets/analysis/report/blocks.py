"""The generated numbers of README.md and of docs/: what topics say, and the few sentences on all of them."""

from collections.abc import Sequence

import numpy as np

from attention_coresets.analysis.parts.markdown import number
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.topic import Words
from attention_coresets.analysis.report.readme_numbers import FOUND
from attention_coresets.analysis.report.targets import real_targets
from attention_coresets.analysis.stats.frames import column
from attention_coresets.analysis.topics.contents import TOPICS

NOTHING = "(not measured yet: run `bash scripts/reproduce.sh`)"
PREFERENCE = ("reduced", "quick", "full", "smoke")  # the tier that pages quote: the first that is there


def preferred(tiers: Sequence[Results]) -> Results:
    """The tier that pages quote, of those given."""
    return min(tiers, key=lambda results: PREFERENCE.index(results.tier))


def page_blocks(tiers: Sequence[Results]) -> dict[str, str]:
    """Name of a block → its Markdown, from the preferred tier of those given."""
    results = preferred(tiers)
    return {name: make(results) or NOTHING for name, make in BLOCKS.items()}


def headline(results: Results) -> str:
    """A few sentences with their numbers; what was not measured is left out."""
    found = [sentence for sentence in (make(results) for topic in TOPICS for make in topic.headline) if sentence]
    over = "caches, heads, layers or texts"
    tier = f"Tier `{results.tier}`; brackets: 95 % intervals over {over}; errors are worst-case unless said."
    return "\n".join([*(f"- {sentence}" for sentence in found), "", tier])


def surprises(results: Results) -> str:
    """What contradicted expectations, a bullet each; what was not measured, or did not contradict, is left out."""
    found = [make(results) for topic in TOPICS for make in topic.surprises]
    return "\n".join(f"- {sentence}" for sentence in found if sentence)


def hours(results: Results) -> str:
    """Wall clock of all constructions and worst queries, one after the other; cells that experiments share once, and of
    a language model one of its heads."""
    rows = results.table.drop_duplicates(["cell", "size", "head"])
    seconds = column(rows, "seconds_construct") + column(rows, "seconds_adversary")
    return number(float(np.nansum(seconds)) / 3600)


SENTENCES: dict[str, Words] = {
    "surprises": surprises,
    "hours": hours,
    **{name: make for topic in TOPICS for name, make in topic.sentences.items()},
}
BLOCKS: dict[str, Words] = {
    "headline": headline,
    "real_targets": real_targets,
    **{name: make for topic in TOPICS for name, make in topic.tables.items()},
    **SENTENCES,
    **FOUND,
}
