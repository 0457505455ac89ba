"""Figures of a data card: how long reasoning and answers are, and how many rows each stage leaves."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

from dipscope.data.checking.check import Stats
from dipscope.data.checking.spread import Spread, edge
from dipscope.report.datatables import share
from dipscope.report.look import CONFIG, INK, PALETTE, short
from dipscope.report.words import clean

_PARTS = {"reasoning": PALETTE[0], "answer": PALETTE[1]}
_WIDTH, _HEIGHT, _BAR = 380, 104, 24
_TITLE = 50  # characters of a title's line
_LABEL: dict[str, Any] = {"align": "left", "fontSize": 11, "color": INK, "opacity": 0.75}


def lengths(stats: Mapping[str, Stats]) -> dict[str, Any] | None:
    """Histograms of the lengths of reasoning, at the left, and of answers.

    Variants that look the same share a panel; variants without the part have none. All panels share the
    scale of the lengths, which is logarithmic; the share of rows has its own in each. The dashed line is the
    median of the rows that have the part. None where no row has either part.
    """
    spreads = [s.lengths[part] for s in stats.values() for part in _PARTS if s.lengths[part].bins]
    if not spreads:
        return None
    first, last = edge(min(s.bins[0][0] for s in spreads)), edge(max(s.bins[-1][0] for s in spreads) + 1)
    x = alt.Scale(type="log", domain=[short(first), short(last)], nice=False)
    with debug_mode(False):
        columns = [column for part in _PARTS if (column := _column(stats, part, x))]
        return _spec(alt.hconcat(*(alt.vconcat(*c, spacing=16) for c in columns), spacing=28))


def _column(stats: Mapping[str, Stats], part: str, x: alt.Scale) -> list[alt.LayerChart]:
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, s in stats.items():
        spread = s.lengths[part]
        if spread.bins:
            groups.setdefault((spread.bins, spread.count, spread.typical), []).append(name)
    panels = []
    for names in groups.values():
        owner = stats[names[0]]
        who = f": {clean(', '.join(names))}" if len(stats) > 1 else ""
        lines = textwrap.wrap(part.capitalize() + who, _TITLE)
        text = lines if len(lines) > 1 else lines[0]
        title = {"text": text, "subtitle": _note(owner.lengths[part]), "limit": _WIDTH}
        unit = "tokens" if owner.unit.startswith("tokens") else owner.unit
        panel = _panel(owner.lengths[part], _PARTS[part], unit, x)
        panels.append(panel.properties(width=_WIDTH, height=_HEIGHT, title=title))
    return panels


def _panel(spread: Spread, colour: str, unit: str, x: alt.Scale) -> alt.LayerChart:
    rows = [
        {"from": short(edge(k)), "to": short(edge(k + 1)), "share": short(n / spread.count), "foot": 0}
        for k, n in spread.bins
    ]
    bars = (
        _chart(rows)
        .mark_bar(color=colour, opacity=0.85, binSpacing=0.5)
        .encode(
            x=alt.X(
                "from:Q",
                scale=x,
                title=unit,
                axis=alt.Axis(format="~s", grid=False, tickCount=6, labelFlush=False),
            ),
            x2="to:Q",
            y=alt.Y("share:Q", title="rows", axis=alt.Axis(format="~%", tickCount=3)),
            y2="foot:Q",
        )
    )
    middle = _chart([{"median": spread.typical}]).mark_rule(color=INK, strokeDash=[4, 3])
    return alt.LayerChart(layer=[bars, middle.encode(x=alt.X("median:Q", scale=x))])


def _note(spread: Spread) -> str:
    without = spread.count - spread.present
    said = f"median {spread.typical:,.0f}"
    return f"{said} of the {spread.present:,} rows that have it; {without:,} have none" if without else said


def stages(counts: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """A bar for every stage of a build, in order, with its responses and their share of the first stage's."""
    whole = counts[0][1]
    rows = [
        {"stage": clean(name), "rows": n, "label": f"{n:,}" + (f" ({share(n, whole)})" if i else "")}
        for i, (name, n) in enumerate(counts)
    ]
    most = max(n for _, n in counts) or 1
    with debug_mode(False):
        base = _chart(rows).encode(
            y=alt.Y("stage:N", sort=None, title=None, axis=alt.Axis(labelLimit=260, grid=False)),
            x=alt.X("rows:Q", title="responses", scale=alt.Scale(domain=[0, most], nice=False),
                    axis=alt.Axis(tickCount=5, format=",d")),
        )  # fmt: skip
        bars = base.mark_bar(color=PALETTE[0], opacity=0.85, height=_BAR * 0.62)
        labels = base.mark_text(dx=5, **_LABEL).encode(text="label:N")
        chart = alt.layer(bars, labels).properties(width=500, height=_BAR * len(rows))
        return _spec(chart)


def _chart(rows: list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=rows))


def _spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    spec: dict[str, Any] = chart.to_dict(validate=False)
    spec["padding"] = {"left": 8, "top": 8, "right": 12, "bottom": 8}
    # The width that a study's figures keep free for the axis is too narrow for the names of stages.
    quiet = {"subtitleColor": INK, "subtitleFontSize": 11, "subtitlePadding": 4}
    spec["config"] = {
        **CONFIG, "axisY": {"ticks": False, "labelPadding": 6}, "title": {**CONFIG["title"], **quiet}
    }  # fmt: skip
    return spec
