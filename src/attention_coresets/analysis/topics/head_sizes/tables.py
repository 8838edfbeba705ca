"""The law of the sizes that heads need, and what tells their errors, as Markdown."""

from attention_coresets.analysis.parts.markdown import interval, table
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.stats.frames import column, distinct
from attention_coresets.analysis.topics.head_sizes.measures import slopes, told
from attention_coresets.analysis.topics.head_sizes.plans import SIZES


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
