"""The study's figures by name: those of every topic, and two that hold topics against one another."""

from matplotlib.figure import Figure

from attention_coresets.analysis.figures.style import style
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.parts.topic import Drawing
from attention_coresets.analysis.report.overview.headline import headline
from attention_coresets.analysis.report.overview.sandwich import sandwich
from attention_coresets.analysis.topics.contents import TOPICS

FIGURES: dict[str, Drawing] = {
    "headline": ("epsilon_rate", headline),
    "sandwich": ("lower_bound_orthonormal", sandwich),
    **{name: drawing for topic in TOPICS for name, drawing in topic.figures.items()},
}


def draw(name: str, results: Results) -> Figure:
    """One figure in the study's style. KeyError for an unknown name; its experiment must have rows."""
    _, make = FIGURES[name]
    with style():
        return make(results)
