"""The study's figures by name: those of every topic."""

from matplotlib.figure import Figure

from attention_coresets.analysis.figures.style import style
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.topic import Drawing
from attention_coresets.analysis.topics.contents import TOPICS

FIGURES: dict[str, Drawing] = {name: drawing for topic in TOPICS for name, drawing in topic.figures.items()}


def draw(name: str, results: Results) -> Figure:
    """One figure in the study's style. KeyError for an unknown name; its experiment must have rows."""
    _, make = FIGURES[name]
    with style():
        return make(results)
