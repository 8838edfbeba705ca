"""The law of the sizes that heads need, and what tells their errors, as Markdown."""

from attention_coresets.analysis.parts.markdown import interval, number, size_between, table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.topics.head_sizes.measures import ERROR, needed, slopes, told
from attention_coresets.analysis.topics.head_sizes.plans import GEMMA, OURS, SIZES
from attention_coresets.analysis.topics.real_heads.caches import named

EPSILON = 0.1  # sizes that the table has of each head of the second model


def section(results: Results) -> str:
    """Slopes of the law, and R² of each predictor."""
    rows = results.rows(SIZES)
    if rows.empty:
        return f"No heads asked by a replay yet: run `python scripts/sweep.py experiment={SIZES}`."
    lines = [[part.setting, interval(part.estimate)] for part in slopes(results)]
    return f"{table(['Law of the size needed', 'value'], lines)}\n\n{predictors(results)}"


def predictors(results: Results) -> str:
    """R² of each predictor for each arm."""
    rows = results.rows(SIZES)
    if rows.empty:
        return section(results)
    arms = distinct(rows, "arm")[::-1]
    found = {arm: told(results, arm) for arm in arms}
    lines = [[words, *(interval(found[arm][words]) for arm in arms)] for words in found[arms[0]]]
    heads = len(rows[["cache_params"]].drop_duplicates())
    about = (
        f"{heads} heads, n = {column(rows, 'n').max():.0f}, {len(distinct(rows, 'size'))} sizes: share of the variance"
        " of log error explained by log size and each measure, in layers that the fit did not see; 95 % intervals over"
        " layers."
    )
    return f"{about}\n\n{table(['Beside the size', *(f'`{arm}`' for arm in arms)], lines)}"


def gemma(results: Results) -> str:
    """Each head of the second model: T, the errors of both arms at 1/8 and the size that the walk needs."""
    rows = results.rows(GEMMA)
    if rows.empty:
        return f"No heads asked by a replay yet: run `python scripts/sweep.py experiment={GEMMA}`."
    sizes = needed(rows.loc[rows["arm"] == OURS], [EPSILON]).set_index("cache_params")
    arms = distinct(rows, "arm")[::-1]
    lines = []
    for cache, head in named(rows.loc[rows["size"] * 8 == rows["n"]]).groupby("cache_params"):
        first, size = head.iloc[0], sizes.loc[cache]
        errors = [number(head.loc[head["arm"] == arm, ERROR].iloc[0]) for arm in arms]
        total = first["total_sensitivity"]
        told = [number(total), number(total / first["n"]), *errors, size_between(size["lo"], size["hi"])]
        lines.append([f"{first['text']}, layer {first['layer']:g}", *told])
    about = (
        f"n = {rows['n'].max()}; T of all queries of a replay; errors of m = n/8 at the 99th percentile of the queries"
        " of another replay, values of norm at most 1."
    )
    heads = ["Head", "T", "T/n", *(f"error of `{arm}`" for arm in arms), f"m that `{OURS}` needs for {EPSILON:g}"]
    return f"{about}\n\n{table(heads, sorted(lines))}"
