"""Charts over the steps: scores with their bands, response length, truncated share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from dipscope.analysis.results import Curve, Point, dipped
from dipscope.report.look import WIDTH, Chart, Look, focus, short, span


def score(curves: Sequence[Curve], look: Look, title: str, height: int = 210) -> Chart:
    """Scores over the steps with their bands; `mode` switches to completed responses or truncation bounds."""
    rows = [row(c, p, look) for c in curves for p in c.points]
    ranges = {
        "all": _reach(rows),
        "bounds": span([r["lower"] for r in rows] + [r["upper"] for r in rows]),
        "completed": span([r["completed"] for r in rows if r["completed"] is not None]),
    }
    _place_labels(rows, ranges["all"], height)
    y = alt.Y(
        "y:Q",
        title=None,
        axis=alt.Axis(format=".0%", tickCount=5, tickMinStep=0.01),
        scale=alt.Scale(
            domainMin=alt.ExprRef(_pick({k: v[0] for k, v in ranges.items()})),
            domainMax=alt.ExprRef(_pick({k: v[1] for k, v in ranges.items()})),
            nice=False,
        ),
    )
    chart = (
        look.chart(rows)
        .transform_calculate(y="mode == 'completed' ? datum.completed : datum.score")
        .transform_calculate(
            lo=_pick({"all": "datum.low", "bounds": "datum.lower", "completed": "datum.completed"})
        )
        .transform_calculate(
            hi=_pick({"all": "datum.high", "bounds": "datum.upper", "completed": "datum.completed"})
        )
        .transform_calculate(at="mode == 'completed' ? datum.completed : datum.label_y")
    )
    x, colour = look.x(), look.colour(legend=not look.direct)
    bases = sorted({r["score"] for r in rows if r["step"] == 0})
    layers = [
        look.chart([{"y": b} for b in bases]).mark_rule(strokeDash=[4, 4]).encode(y=y),
        chart.mark_area(clip=True).encode(
            x=x,
            y=alt.Y("lo:Q", scale=y["scale"], title=None),
            y2="hi:Q",
            color=colour,
            opacity=focus(0.15, 0.03),
        ),
        chart.mark_line(strokeWidth=1.9).encode(x=x, y=y, color=colour, opacity=focus(1, 0.15)),
        chart.mark_point(filled=True, size=26).encode(
            x=x, y=y, color=colour, opacity=focus(1, 0.15), tooltip=tips()
        ),
        chart.transform_filter("datum.trough && mode == 'all'")
        .mark_point(filled=False, size=130, strokeWidth=1.4)
        .encode(x=x, y=y, color=colour, opacity=focus(1, 0.15)),
    ]
    if look.direct:
        layers.append(
            chart.transform_filter("datum.last")
            .mark_text(align="left", dx=8, fontSize=11, fontWeight=600, clip=False)
            .encode(
                x=x,
                y=alt.Y("at:Q", scale=y["scale"], title=None),
                text="group:N",
                color=colour,
                opacity=focus(1, 0.15),
            )
        )
    return alt.layer(*layers).properties(title=title, height=height, width=WIDTH)


def _reach(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The range of the bands, but no further from the scores than keeps the lines readable."""
    scores = [r["score"] for r in rows]
    room = max(0.2, max(scores) - min(scores))
    low, high = min(r["low"] for r in rows), max(r["high"] for r in rows)
    return span([max(low, min(scores) - room), min(high, max(scores) + room)])


def length(curves: Sequence[Curve], look: Look) -> Chart:
    """Mean response length over the steps."""
    return _small(curves, look, "tokens", "tokens a response", alt.Axis(format="~s", tickCount=3), [0])


def truncated(curves: Sequence[Curve], look: Look) -> Chart:
    """Share of responses cut off at the token limit over the steps."""
    return _small(curves, look, "truncated", "truncated", alt.Axis(format=".0%", tickCount=3), [0, 0.1])


def _small(
    curves: Sequence[Curve], look: Look, field: str, title: str, axis: alt.Axis, seen: list[float]
) -> Chart:
    rows = [row(c, p, look) for c in curves for p in c.points]
    top = max([*seen, *(r[field] for r in rows)]) * 1.05
    base = look.chart(rows).encode(
        x=look.x(None),
        y=alt.Y(f"{field}:Q", title=None, axis=axis, scale=alt.Scale(domain=[0, top], nice=False)),
        color=look.colour(legend=True),
    )
    line = base.mark_line(strokeWidth=1.5).encode(opacity=focus(1, 0.15))
    dots = base.mark_point(filled=True, size=16).encode(opacity=focus(1, 0.15), tooltip=tips())
    return alt.layer(line, dots).properties(title=title, height=72, width=WIDTH)


def _pick(by_mode: dict[str, Any]) -> str:
    otherwise = f"mode == 'completed' ? {by_mode['completed']} : {by_mode['all']}"
    return f"mode == 'bounds' ? {by_mode['bounds']} : {otherwise}"


def row(curve: Curve, p: Point, look: Look) -> dict[str, Any]:
    """One point of a curve as the charts read it."""
    shape = curve.shape
    dips = shape is not None and dipped(shape.label) and shape.trough_step == p.step
    return {
        "group": look.names[curve.group], "step": p.step, "score": short(p.score), "low": short(p.low),
        "high": short(p.high), "completed": None if p.completed is None else short(p.completed),
        "lower": short(p.lower_bound), "upper": short(p.upper_bound), "truncated": short(p.truncated),
        "missing": short(p.missing), "tokens": round(p.tokens, 1), "trough": dips,
        "last": p is curve.points[-1], "label_y": short(p.score),
    }  # fmt: skip


def _place_labels(rows: list[dict[str, Any]], span: tuple[float, float], height: int) -> None:
    """Move the names at the ends of the lines apart, in place: at least 13 px between two of them."""
    ends = sorted((r for r in rows if r["last"]), key=lambda r: (r["score"], r["group"]))
    gap = 13 * (span[1] - span[0]) / height
    at = [float(r["score"]) for r in ends]
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + gap)
    overshoot = max(0.0, at[-1] - span[1]) if at else 0.0
    shift = (sum(r["score"] for r in ends) - sum(at)) / len(at) if at else 0.0
    for r, value in zip(ends, at, strict=True):
        r["label_y"] = short(value + min(shift, -overshoot))


def tips() -> list[alt.Tooltip]:
    """What is shown of a point under the pointer."""
    share = dict.fromkeys(("score", "low", "high", "completed", "truncated", "missing"), ".1%")
    tips = [alt.Tooltip(f"{k}:Q", format=f) for k, f in {**share, "tokens": ".0f"}.items()]
    return [alt.Tooltip("group:N"), alt.Tooltip("step:Q"), *tips]
