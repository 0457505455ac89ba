"""What all figures of a study share: colours, names, the scale of the steps, the style."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

from dipscope.analysis.results import Analysis
from dipscope.report import words

# Readable on white and on near-black, and apart for the common kinds of colour blindness.
PALETTE = ("#3a78c2", "#d9692c", "#2a9d78", "#b0569f", "#b08d1e", "#6f6bd0", "#4fa3b8", "#a8504a")
PARTS = {
    "truncation": ("Truncated", "#d2a03d"),
    "missing": ("No answer", "#7f8fb5"),
    "wrong": ("Wrong", "#bb5a4a"),
}
INK, FAINT = "#2b2b2b", "#8a8a8a"
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
WIDTH = 380
_QUIET = {
    "labelColor": INK, "labelOpacity": 0.75,
    "titleColor": INK, "titleOpacity": 0.75, "titleFontWeight": "normal",
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "font": FONT,
    "background": "#ffffff",
    "view": {"stroke": None},
    "rule": {"color": FAINT},
    "style": {"total": {"color": INK}},
    "axis": {
        **_QUIET, "domain": False, "gridColor": INK, "gridOpacity": 0.1, "tickColor": INK,
        "tickOpacity": 0.35, "labelFontSize": 11, "titleFontSize": 11, "titlePadding": 6,
    },
    "axisY": {"ticks": False, "minExtent": 34, "maxExtent": 34, "labelPadding": 6},
    "title": {"anchor": "start", "color": INK, "fontSize": 12.5, "fontWeight": 600, "offset": 8,
              "frame": "group"},
    "header": {"labelColor": INK, "labelFontSize": 11},
    "legend": {"labelColor": INK, "labelFontSize": 11, "symbolType": "stroke", "symbolStrokeWidth": 3},
}  # fmt: skip
Chart = alt.LayerChart | alt.FacetChart | alt.ConcatChart
DIRECT = 6  # up to this many groups are named at the end of their lines; more need a legend


class Look:
    """Colours, short names and steps, the same in every figure of a study."""

    def __init__(self, analysis: Analysis) -> None:
        self.names = words.short_names(analysis.curves)
        self.colours = {n: PALETTE[i % len(PALETTE)] for i, n in enumerate(self.names.values())}
        self.steps = sorted({p.step for c in analysis.curves for p in c.points})
        self.direct = len(self.names) <= DIRECT and max(map(len, self.names.values()), default=0) <= 24
        longest = max(map(len, self.names.values()), default=0)
        self.margin = round(14 + 7.4 * longest) if self.direct else 12
        self.tables: dict[str, list[dict[str, Any]]] = {}

    def chart(self, rows: list[dict[str, Any]]) -> alt.Chart:
        """A chart on rows kept outside of it: Altair copies what it holds at every step."""
        name = f"table{len(self.tables) + 1}"
        self.tables[name] = rows
        return alt.Chart(alt.NamedData(name))

    def spec(self, chart: alt.TopLevelMixin, margin: int = 12) -> dict[str, Any]:
        """The finished specification, with its data, parameters and style.

        `margin` is the room in pixels the page leaves for names at the right, so that panels line up.
        """
        with debug_mode(False):
            spec: dict[str, Any] = chart.to_dict(validate=False)
        spec["padding"] = {"left": 8, "top": 8, "right": 12, "bottom": 8}
        spec["usermeta"] = {"margin": margin}
        spec["params"] = [{"name": "mode", "value": "all"}, {"name": "focus", "value": ""}]
        spec["config"], spec["datasets"], self.tables = CONFIG, self.tables, {}
        return spec

    def x(self, title: str | None = "step") -> alt.X:
        """Steps on a scale that is logarithmic from the first checkpoint on and shows the base at 0."""
        positive = [s for s in self.steps if s > 0] or [1]
        return alt.X(
            "step:Q",
            title=title,
            scale=alt.Scale(type="symlog", constant=positive[0], domain=[0, positive[-1]], nice=False),
            axis=alt.Axis(
                values=self.steps, labelExpr="datum.value == 0 ? 'base' : datum.label", format="d",
                labelOverlap="greedy", labelSeparation=2, labelFlush=False, grid=False, tickSize=4,
            ),
        )  # fmt: skip

    def colour(self, *, legend: bool = True) -> alt.Color:
        """Group → colour, with a legend where the lines do not carry their names."""
        return alt.Color(
            "group:N",
            scale=alt.Scale(domain=list(self.colours), range=list(self.colours.values())),
            legend=alt.Legend(title=None, orient="bottom", columns=3) if legend else None,
        )


def focus(full: float, dimmed: float) -> Any:
    """An opacity that falls when another group is looked at; the page sets the parameter."""
    return alt.condition("focus == '' || datum.group == focus", alt.value(full), alt.value(dimmed))


def span(values: Iterable[float]) -> tuple[float, float]:
    """A range that holds the values with a little room, and stays in [0, 1] where they do."""
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    pad = max(0.06 * (high - low), 0.01)
    return short(max(0.0, low - pad)), short(min(1.0, high + pad) if high <= 1 else high + pad)


def short(value: float) -> float:
    """A number as specifications hold it: five decimals, no negative zero."""
    return round(value, 5) + 0.0
