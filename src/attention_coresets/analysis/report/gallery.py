"""The study's figures: one function a figure, from a tier's results to a matplotlib Figure."""

from collections.abc import Callable

from matplotlib.figure import Figure

from attention_coresets.analysis.figures.style import style
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.report.overview.headline import headline
from attention_coresets.analysis.report.overview.sandwich import sandwich
from attention_coresets.analysis.topics.ablation.figures import ablation
from attention_coresets.analysis.topics.hard_instances.figures import (
    antipodal,
    controls,
    lower_bound,
    lower_bound_random,
)
from attention_coresets.analysis.topics.league.figures import league_map, league_ranks
from attention_coresets.analysis.topics.rates.figures.constant import constant
from attention_coresets.analysis.topics.rates.figures.rates import d_rate, error_vs_size, n_independence
from attention_coresets.analysis.topics.rates.figures.rho import rho_rate
from attention_coresets.analysis.topics.real_heads.figures import real_errors, real_geometry, real_language
from attention_coresets.analysis.topics.worst_case.figures import ceilings

HEADS = "heads.parquet"  # what a figure needs that is of no experiment
# name of the figure's files -> the experiment it needs and the function that draws it
FIGURES: dict[str, tuple[str, Callable[[Results], Figure]]] = {
    "headline": ("epsilon_rate", headline),
    "error_vs_size": ("epsilon_rate", error_vs_size),
    "d_rate": ("d_rate", d_rate),
    "rho_rate": ("rho_rate", rho_rate),
    "constant": ("constant", constant),
    "n_independence": ("n_independence", n_independence),
    "lower_bound": ("lower_bound_orthonormal", lower_bound),
    "lower_bound_random": ("lower_bound_random", lower_bound_random),
    "antipodal": ("lower_bound_antipodal", antipodal),
    "controls": ("lower_bound_controls", controls),
    "sandwich": ("lower_bound_orthonormal", sandwich),
    "ceilings": ("adversary", ceilings),
    "ablation": ("ablation", ablation),
    "league": ("league", league_ranks),
    "league_map": ("league", league_map),
    "real_errors": ("real_errors", real_errors),
    "real_geometry": (HEADS, real_geometry),
    "real_language": ("real_language", real_language),
}


def draw(name: str, results: Results) -> Figure:
    """One figure in the study's style. KeyError for an unknown name; its experiment must have rows."""
    _, make = FIGURES[name]
    with style():
        return make(results)
