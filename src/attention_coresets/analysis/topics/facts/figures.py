"""Facts kept by a compressed cache, and the divergence of its predictions, by arm and share of the cache."""

from matplotlib.figure import Figure

from attention_coresets.analysis.figures.lines import means_by_size, name_lines
from attention_coresets.analysis.figures.looks import look
from attention_coresets.analysis.figures.style import GREY, headed, log_axes, new_figure, shared_legend
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct, medians
from attention_coresets.analysis.topics.facts.measures import FACTS, told
from attention_coresets.analysis.topics.real_heads.caches import SEGMENT

_LINE = 0.34  # inches
_TITLES = {
    "replay_fit": "ours: tokens and weights by a replay",
    "kvzip": "KVzip",
    "kvzip_plus": "KVzip+",
    "attention_matching": "Attention Matching",
    "dropkv": "DropKV",
    "kvgrad": "KVgrad",
    "leverage": "leverage of keys",
}
_ENDS = {  # of an arm's label: what it changes
    "_layer": "a budget a layer",
    "_pooled": "one budget",
    "_even": "even budgets",
    "_shares": "its own budgets",
    "_fitted": "weights fitted",
    "_refitted": "values refitted",
    "_asked": "asked to repeat",
}


def facts(results: Results) -> Figure:
    """Facts found over those that the full cache finds, and divergence from it, a line for each arm, the least
    divergence first, and on it the mean over segments of text at each share of the cache; segments are faint dots."""
    rows = medians(told(results.rows(FACTS)), [*SEGMENT, "n", "arm", "size"], ["found", "kl"])
    arms = sorted(distinct(rows, "arm"), key=lambda arm: (column(rows.loc[rows["arm"] == arm], "kl").mean(), arm))
    n = column(rows, "n").max()
    shares = {size: f"1/{n / size:g} of the cache kept" for size in distinct(rows, "size")[::-1]}
    figure = new_figure(8.4, _LINE * len(arms) + 1.7)
    found, divergence = figure.subplots(1, 2, sharey=True)
    means_by_size(found, rows, "found", arms, shares)
    means_by_size(divergence, rows, "kl", arms, shares)
    found.axvline(1, color=GREY, linestyle="--", linewidth=1.1, label="the full cache")
    log_axes(divergence, y=False)
    found.grid(True, color="0.92", linewidth=0.6)
    found.set(xlabel="facts found / the full cache's")
    divergence.set(xlabel="KL from the full cache, nats a token")
    name_lines(found, [title(arm) for arm in arms])
    count = len(rows[list(SEGMENT)].drop_duplicates())
    found.plot([], [], ".", color=GREY, markersize=5, markeredgewidth=0, label=f"faint: single segments ({count})")
    headed(figure, "Which planted facts a compressed cache keeps, and how far the model's predictions move")
    shared_legend(figure, [found, divergence])
    return figure


def title(arm: str) -> str:
    """How the figure names an arm of whole-model coresets: "SnapKV, a budget a layer" of snapkv_layer."""
    for end, words in _ENDS.items():
        if arm.endswith(end):
            return f"{title(arm.removesuffix(end))}, {words}"
    return _TITLES.get(arm) or look(arm).label.partition(" (")[0]
