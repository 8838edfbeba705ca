"""The few kinds of charts that the page has, on data called "rows" with an arm, a value and its interval."""

import altair as alt

from attention_coresets.analysis.page.panel import AXIS, tooltip

_HEIGHT, _LINE = 340, 16  # pixels
_LEGEND = alt.Legend(orient="bottom", columns=3, symbolLimit=40, labelLimit=320, title=None)
COLOR = alt.Color("arm:N", legend=_LEGEND, scale=alt.Scale(scheme="tableau10"))
_MARKS = ["circle", "square", "diamond", "cross", "triangle-left", "triangle-down", "triangle-right", "stroke"]
SHAPE = alt.Shape("arm:N", legend=_LEGEND, scale=alt.Scale(range=_MARKS))
_FILL = alt.Fill("arm:N", legend=_LEGEND, scale=alt.Scale(scheme="tableau10"))
_AXIS = alt.Axis(format="~g", tickCount=6)
_ROWS = alt.NamedData("rows")
Layers = alt.LayerChart | alt.FacetChart


def curves(value: str, title: str, told: dict[str, str], *, scale: str = "log") -> Layers:
    """Lines of arms with a bar for each interval, against the axis picked."""
    x = alt.X("x:Q", title=AXIS, scale=alt.Scale(type="log", nice=False, padding=12), axis=alt.Axis(format="~g"))
    y = alt.Scale(type=scale, nice=False, padding=12)  # type: ignore[arg-type]
    base = alt.Chart(_ROWS).encode(x=x, color=COLOR)
    at = alt.Y(f"{value}:Q", title=title, scale=y, axis=_AXIS if scale == "log" else alt.Axis(tickCount=6))
    line = base.mark_line(strokeWidth=1.5).encode(y=at)
    bars = base.mark_rule(strokeWidth=1).encode(y=alt.Y("low:Q", scale=y, title=title), y2="high:Q")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(y=at, shape=SHAPE, tooltip=tooltip(**told))
    return alt.layer(bars, line, points).properties(height=_HEIGHT)


def places(value: str, title: str, told: dict[str, str], *, one: bool = True) -> Layers:
    """A line for each arm, the least value above: a point with its interval on a logarithmic axis; `one`: a rule at
    1."""
    x = alt.Scale(type="log", nice=False, padding=12)
    y = alt.Y("arm:N", title=None, sort=alt.EncodingSortField(field=value, op="min"), axis=alt.Axis(labelLimit=360))
    base = alt.Chart(_ROWS).encode(y=y)
    color = alt.Color("models:N", legend=alt.Legend(orient="bottom", title="coreset model"))
    bars = base.mark_rule().encode(x=alt.X("low:Q", scale=x, title=title), x2="high:Q", color=color)
    at = alt.X(f"{value}:Q", title=title, scale=x, axis=alt.Axis(format="~g"))
    points = base.mark_point(filled=True, size=60, opacity=1).encode(x=at, color=color, tooltip=tooltip(**told))
    rule = alt.Chart(_ROWS).mark_rule(strokeDash=[4, 4], color="#777").encode(x=alt.datum(1))
    layers = [rule, bars, points] if one else [bars, points]
    return alt.layer(*layers).properties(height=alt.Step(_LINE))


def sizes(told: dict[str, str]) -> Layers:
    """Sizes: a bar from the largest size that fails to the next, marked between; open triangles where a size is known
    only to lie above or below those measured; dashed the fitted law."""
    x = alt.X("x:Q", title=AXIS, scale=alt.Scale(type="log", nice=False, padding=12), axis=alt.Axis(format="~g"))
    y = alt.Scale(type="log", nice=False, padding=12)
    title = "size m(ε)"
    base = alt.Chart(_ROWS).encode(x=x, color=COLOR)
    law = base.mark_line(strokeDash=[5, 4], strokeWidth=1.5).encode(y=alt.Y("law:Q", scale=y, title=title))
    bars = base.mark_rule(strokeWidth=1).encode(y=alt.Y("lo:Q", scale=y, title=title), y2="hi:Q")
    inside = alt.condition("datum.status == 'interval'", alt.value(1), alt.value(0))
    shapes = alt.Scale(domain=["interval", "right", "left"], range=["circle", "triangle-up", "triangle-down"])
    labels = (
        "{interval: 'between two sizes', right: 'above the largest size', left: 'at most the smallest'}[datum.value]"
    )
    points = base.mark_point(size=70, strokeWidth=1.5, opacity=1).encode(
        y=alt.Y("middle:Q", scale=y, title=title, axis=_AXIS),
        fill=_FILL,
        fillOpacity=inside,
        shape=alt.Shape("status:N", scale=shapes, legend=alt.Legend(orient="bottom", title=None, labelExpr=labels)),
        tooltip=tooltip(**told),
    )
    return alt.layer(law, bars, points).properties(height=_HEIGHT)


def points(value: str, told: dict[str, str]) -> alt.Chart:
    """A point for each row against the axis picked."""
    return (
        alt.Chart(_ROWS)
        .mark_point(size=45)
        .encode(
            x=alt.X("x:Q", title=AXIS, scale=alt.Scale(type="linear", nice=False, padding=12)),
            y=alt.Y(f"{value}:Q", title="value"),
            color=COLOR,
            shape=SHAPE,
            tooltip=tooltip(**told),
        )
        .properties(height=_HEIGHT)
    )
