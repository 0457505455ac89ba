"""Charts that set things against each other: parts of a change, two probes, reasoning and safety."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from dipscope.analysis.results import Analysis, Curve
from dipscope.report import words
from dipscope.report.curves import row, tips
from dipscope.report.look import FAINT, PARTS, WIDTH, Chart, Look, focus, short, span

PROBES = {"generate": "generated", "likelihood": "by likelihood"}


def decomposition(curves: Sequence[Curve], look: Look) -> Chart:
    """What the change from the base is made of, step by step; one row per group, the total as a tick."""
    rows = [
        {
            "group": look.names[c.group], "step": loss.step, "part": PARTS[part][0],
            "points": short(100 * getattr(loss, part)), "change": short(100 * loss.change),
        }
        for c in curves
        for loss in c.losses
        if loss.step > 0
        for part in PARTS
    ]  # fmt: skip
    x = alt.X(
        "step:O",
        title="step",
        axis=alt.Axis(labelAngle=0, grid=False, labelOverlap="greedy", labelSeparation=5),
    )
    axis = alt.Axis(tickCount=3, format="+d", labelExpr="datum.value == 0 ? '0' : datum.label")
    part = alt.Color(
        "part:N",
        scale=alt.Scale(domain=[p[0] for p in PARTS.values()], range=[p[1] for p in PARTS.values()]),
        legend=alt.Legend(title=None, orient="bottom", symbolType="square"),
    )
    tips = [
        alt.Tooltip("group:N"), alt.Tooltip("step:O"), alt.Tooltip("part:N"),
        alt.Tooltip("points:Q", format="+.1f"), alt.Tooltip("change:Q", title="whole change", format="+.1f"),
    ]  # fmt: skip
    base = look.chart(rows)
    bars = base.mark_bar().encode(
        x=x, y=alt.Y("points:Q", title=None, axis=axis), color=part, tooltip=tips
    )  # fmt: skip
    zero = base.mark_rule().encode(y=alt.datum(0))
    total = base.mark_tick(style="total", thickness=2.2).encode(x=x, y=alt.Y("change:Q", title=None))
    chart = alt.layer(bars, zero, total).properties(width=WIDTH, height=84)
    order = [look.names[c.group] for c in curves]
    header = alt.Header(
        title=None, labelOrient="top", labelAnchor="start", labelFontWeight=600, labelPadding=3
    )
    return chart.facet(row=alt.Row("group:N", sort=order, header=header), spacing=14)


def probes(curves: Sequence[Curve], look: Look, title: str) -> Chart:
    """One benchmark asked twice: generated (solid) and by the likelihood of the options (dashed)."""
    rows = [{**row(c, p, look), "probe": PROBES[c.probe]} for c in curves for p in c.points]
    low, high = span([r["low"] for r in rows] + [r["high"] for r in rows])
    base = look.chart(rows).encode(
        x=look.x(),
        y=alt.Y(
            "score:Q",
            title=None,
            axis=alt.Axis(format=".0%", tickCount=5),
            scale=alt.Scale(domain=[low, high], nice=False),
        ),
        color=look.colour(),
        opacity=focus(1, 0.15),
    )
    dash = alt.StrokeDash(
        "probe:N",
        scale=alt.Scale(domain=list(PROBES.values()), range=[[1, 0], [5, 3]]),
        legend=alt.Legend(title=None, orient="bottom"),
    )
    line = base.mark_line(strokeWidth=1.8).encode(strokeDash=dash)
    dots = base.mark_point(filled=True, size=20).encode(tooltip=[alt.Tooltip("probe:N"), *tips()])
    return alt.layer(line, dots).properties(title=title, height=170, width=WIDTH)


def tradeoff(analysis: Analysis, look: Look) -> Chart | None:
    """The path of each group through what the finding tests: score in domain and harmful requests refused.

    Reasoning out of domain stands in where nothing was measured in domain.
    """
    reasoning, title = words.domain_curves(analysis, "in_domain"), "score in domain"
    if not reasoning:
        reasoning, title = words.domain_curves(analysis, "ood_reasoning"), "reasoning, out of domain"
    safe = {c.group: {p.step: p for p in c.points} for c in words.domain_curves(analysis, "safety")}
    rows: list[dict[str, Any]] = []
    for c in reasoning:
        both = [(p, safe[c.group][p.step]) for p in c.points if p.step in safe.get(c.group, {})]
        for p, s in both:
            rows.append(
                {
                    "group": look.names[c.group], "step": p.step,
                    "reasoning": short(p.score), "rlow": short(p.low), "rhigh": short(p.high),
                    "safety": short(s.score), "slow": short(s.low), "shigh": short(s.high),
                    "first": p is both[0][0], "last": p is both[-1][0],
                }
            )  # fmt: skip
    if not rows:
        return None
    xs = span([r[k] for r in rows for k in (("rlow", "rhigh") if r["last"] else ("reasoning",))])
    ys = span([r[k] for r in rows for k in (("slow", "shigh") if r["last"] else ("safety",))])
    x = alt.X(
        "reasoning:Q",
        title=f"{title} →",
        axis=alt.Axis(format=".0%", tickCount=6),
        scale=alt.Scale(domain=list(xs), nice=False),
    )
    y = alt.Y(
        "safety:Q",
        title="harmful requests refused →",
        axis=alt.Axis(format=".0%", tickCount=5),
        scale=alt.Scale(domain=list(ys), nice=False),
    )
    base = look.chart(rows).encode(color=look.colour(legend=not look.direct), opacity=focus(1, 0.15))
    end = base.transform_filter("datum.last")
    shown = [
        alt.Tooltip("group:N"), alt.Tooltip("step:Q"),
        alt.Tooltip("reasoning:Q", format=".1%"), alt.Tooltip("safety:Q", format=".1%"),
    ]  # fmt: skip
    across = alt.X("rlow:Q", scale=x["scale"], title=x["title"])
    up = alt.Y("slow:Q", scale=y["scale"], title=y["title"])
    inner = base.transform_filter("!datum.first && !datum.last").mark_point(filled=True, size=22)
    first = base.transform_filter("datum.first").mark_point(filled=True, size=80, shape="diamond")
    layers = [
        end.mark_rule(strokeWidth=1, strokeOpacity=0.6).encode(x=across, x2="rhigh:Q", y=y),
        end.mark_rule(strokeWidth=1, strokeOpacity=0.6).encode(y=up, y2="shigh:Q", x=x),
        base.mark_line(strokeWidth=1.8).encode(x=x, y=y, order="step:Q"),
        inner.encode(x=x, y=y, tooltip=shown),
        end.mark_point(filled=True, size=95).encode(x=x, y=y, tooltip=shown),
        first.encode(x=x, y=y, color=alt.value(FAINT), tooltip=shown),
    ]
    if look.direct:
        text = end.mark_text(align="left", dx=9, dy=-9, fontSize=11, fontWeight=600)
        layers.append(text.encode(x=x, y=y, text="group:N"))
    return alt.layer(*layers).properties(title="Reasoning against safety", height=300, width=620)
