"""Puts a page together: its words, its panels' data, and the JavaScript that draws them, in one text."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

import altair as alt
import vl_convert

from attention_coresets.analysis.page import measured
from attention_coresets.analysis.page.panel import Panel
from attention_coresets.analysis.page.study import study_panels
from attention_coresets.analysis.page.verdicts import verdicts
from attention_coresets.analysis.parts.results import Results
from attention_coresets.analysis.show import numbers
from attention_coresets.analysis.show.shown import Shown
from attention_coresets.analysis.show.summary import heading
from attention_coresets.analysis.show.text import ratios

_EXPOSED = "window.vegaEmbed = vegaEmbed;"  # of the bundle, to the page's script
_HERE = Path(__file__).parent
SOURCES = ("table.parquet", "fits.json", "heads.parquet")  # what a tier's page is made of


def study_page(results: Results, folder: Path) -> str:
    """The page of a tier, whose files are in `folder`."""
    commands = {
        name: f"python scripts/sweep.py experiment={name} tier={results.tier}"
        for name in sorted(set(results.table["experiment"]))
    } | {"heads.parquet": f"python scripts/heads.py --tier {results.tier}"}
    first = (
        "verdicts",
        "Verdicts",
        f"<p>Every claim, decided on tier {escape(results.tier)}.</p>\n{verdicts(results)}",
    )
    title = f"Attention coresets, tier {results.tier}"
    about = (
        "How small can a coreset of a KV cache be for a given worst-case error of attention? Theory says √d·e^ρ/ε"
        " tokens, up to o(ρ) in the exponent; here is what was measured."
    )
    return _page(title, about, [first], study_panels(results), commands, digest(folder))


def own_page(shown: Shown) -> str:
    """The page of one sweep."""
    rows = shown.rows.assign(experiment=shown.place.name)
    ranked = numbers.ranked(numbers.errors(rows, numbers.varying(rows)))
    words = f"<pre>{escape(heading(shown))}</pre>\n<h3>Arms over the best one</h3>\n"
    words += f'<pre tabindex="0">{escape(ratios(shown, ranked[0], 100))}</pre>'
    panels = [measured.errors(rows)]
    try:
        panels.append(measured.sizes(rows, numbers.laws(rows), shown.units))
    except ValueError as reason:  # too few sizes, or an unfinished sweep
        words += f"<p>No sizes or laws: {escape(str(reason))}.</p>"
    commands = {shown.place.name: shown.command}
    return _page(shown.place.name, "", [("summary", "What it says", words)], panels, commands, "")


def digest(folder: Path) -> str:
    """What a tier's page was made of: a page with another digest is out of step."""
    found = hashlib.sha256()
    for name in SOURCES:
        if (folder / name).exists():
            found.update((folder / name).read_bytes())
    return found.hexdigest()


def digest_of(page: str) -> str:
    """The digest that a page holds."""
    return page.partition('<meta name="results" content="')[2].partition('"')[0]


def _page(
    title: str,
    about: str,
    words: Sequence[tuple[str, str, str]],
    panels: Iterable[Panel],
    commands: Mapping[str, str],
    sources: str,
) -> str:
    panels = list(panels)
    places = [(name, head) for name, head, _ in words] + [(panel.name, panel.title) for panel in panels]
    sections = [f'<section id="{name}"><h2>{escape(head)}</h2>\n{text}\n</section>' for name, head, text in words]
    return Template((_HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        about=escape(about),
        sources=sources,
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        links="\n".join(f'<li><a href="#{name}">{escape(head)}</a></li>' for name, head in places),
        sections="\n".join([*sections, *(_section(panel) for panel in panels)]),
        commands=_json(commands),
        versions=f"Altair {alt.__version__}, Vega-Lite {alt.SCHEMA_VERSION.lstrip('v')}",
        library=vl_convert.javascript_bundle(_EXPOSED).replace("</script", "<\\/script"),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
    )


def _section(panel: Panel) -> str:
    return f"""<section id="{panel.name}"><h2>{escape(panel.title)}</h2>
<p>{escape(panel.about)}</p>
<form class="controls" onsubmit="return false"></form>
<div class="chart"></div>
<p><span class="count" role="status"></span> <button type="button" class="download">all data as CSV</button></p>
<details class="rows"><summary>The points as a table</summary><div class="scroll" tabindex="0" role="region"
aria-label="points of {escape(panel.title)}"></div></details>
<script type="application/json" class="panel">{_json(panel.content())}</script>
</section>"""


def _json(content: object) -> str:
    """JSON that can stand in a page."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
