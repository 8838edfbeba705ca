"""Facts kept, as Markdown."""

import pandas as pd

from attention_coresets.analysis.parts.arm_names import ARM, model_of
from attention_coresets.analysis.parts.markdown import interval, number, table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.estimates import paired_ratios
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.topics.facts.measures import ABLATION, FACTS, GEMMA, OURS, mean, told
from attention_coresets.analysis.topics.real_heads.caches import SEGMENT

CHANGES = {
    "own": "the whole budget by mean square",
    "maximum": "the whole budget by maximum",
    "unweighted": "no weights",
    "layer": "the budget pooled over each layer alone",
    "even": "as many tokens in each head",
    "sensitivity": "each head's part of the budget follows its T",
    "score": "the second half by score, without exchanges",
    "walk": "the second half by the Gram–Schmidt walk in each head",
    "gain": "tokens of the second half added one by one, to whichever head errs less by most",
    "unmoved": "no queries moved behind the text",
    "recent": "the last 32 tokens kept by every head",
    "asked": "each chunk of the replay asked for in words",
    "half": "the first half of each chunk replayed",
    "whole": "the text replayed in one piece",
}  # of OURS, by the end of the arm's name
_COLUMNS = {"found": "facts found", "kl": "KL", "added": "loss added"}


def facts(results: Results) -> str:
    """What SmolLM2-135M keeps."""
    return _kept(results, FACTS)


def gemma(results: Results) -> str:
    """What Gemma 3 270M keeps."""
    return _kept(results, GEMMA)


def mean_of(rows: pd.DataFrame, arm: str, name: str) -> str:
    """The mean of a column over segments with its interval, a dash where no segment says anything."""
    return "–" if (found := mean(rows, arm, name)) is None else interval(found)


def _kept(results: Results, experiment: str) -> str:
    """Facts found over the full cache's, divergence and loss added by arm and share, means over segments of text."""
    rows = results.rows(experiment)
    if rows.empty:
        return f"No texts with facts read yet: run `python scripts/sweep.py experiment={experiment}`."
    rows = told(rows)
    sizes = distinct(rows, "size")[::-1]
    shares = [f"1/{rows['n'].max() / size:g}" for size in sizes]
    smallest = rows.loc[rows["size"] == sizes[-1]]
    arms = sorted(
        distinct(smallest, "arm"), key=lambda arm: float(column(smallest.loc[smallest["arm"] == arm], "kl").mean())
    )
    lines = []
    for arm in arms:
        cells = []
        for size in sizes:
            here = rows.loc[rows["size"] == size]
            cells += [mean_of(here, arm, name) for name in _COLUMNS]
        lines.append([model_of(rows, arm), *cells])
    heads = [f"{word}, {share}" for share in shares for word in _COLUMNS.values()]
    full = column(rows.drop_duplicates(["text", "start"]), "needle_found_full").mean()
    about = (
        f"{_segments(rows)}; facts over those"
        f" of the full cache, which finds {full:.3g} of all; KL and loss in nats a token; 95 % intervals over segments."
    )
    return f"{about}\n\n{table([ARM, *heads], lines)}"


def ablation(results: Results) -> str:
    """Facts, and divergence over ours, of versions with one choice changed, the least divergence on top."""
    rows = results.rows(ABLATION)
    if rows.empty:
        return f"No versions compared yet: run `python scripts/sweep.py experiment={ABLATION}`."
    rows = told(rows)
    (size,) = distinct(rows, "size")
    changes = {OURS: "–"} | {f"{OURS}_{end}": words for end, words in CHANGES.items()}
    ratios = paired_ratios(rows, OURS, "kl", SEGMENT)
    lines = []
    for arm in sorted(ratios, key=lambda arm: ratios[arm].value):
        ratio = "1" if arm == OURS else interval(ratios[arm])
        lines.append([f"`{arm}`", changes[arm], ratio, mean_of(rows, arm, "found")])
    about = (
        f"{_segments(rows)}, m = n/{rows['n'].max() / size:g}; the median"
        " ratio of divergences, segment by segment, and facts over those of the full cache; 95 % intervals."
    )
    return f"{about}\n\n{table(['Arm', 'What is changed', 'KL over ours', 'facts found'], lines)}"


def _segments(rows: pd.DataFrame) -> str:
    """How many segments of how many texts the rows are of, and how long each is."""
    segments = rows.drop_duplicates(["text", "start"])
    return f"{len(segments)} segments of {len(distinct(segments, 'text'))} texts, n = {rows['n'].max()}"


def costs(results: Results) -> str:
    """What each arm takes, by arm and share, means over segments: seconds of a KV head, and bytes over the least."""
    rows = results.rows(FACTS)
    if rows.empty:
        return facts(results)
    sizes = distinct(rows, "size")[::-1]
    lines = []
    for arm in distinct(rows, "arm"):
        cells = []
        for size in sizes:
            here = rows.loc[rows["size"] == size]
            own = here.loc[here["arm"] == arm]
            more = column(own, "kept_bytes").mean() / column(here, "kept_bytes").min()
            cells += [number(float(column(own, "seconds_construct").mean())), number(float(more))]
        lines.append([model_of(rows, arm), *cells])
    shares = [f"1/{rows['n'].max() / size:g}" for size in sizes]
    heads = [f"{word}, {share}" for share in shares for word in ("seconds a KV head", "bytes")]
    return table([ARM, *heads], lines)
