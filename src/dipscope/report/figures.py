"""One Vega-Altair chart per figure: the page, the SVG and the PNG all come from the same specification."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

from dipscope.analysis.results import Analysis, Curve
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
    "labelColor": INK, "labelOpacity": 0.75, "titleColor": INK, "titleOpacity": 0.75, "titleFontWeight": "normal"
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "font": FONT,
    "background": "#ffffff",
    "view": {"stroke": None},
    "rule": {"color": FAINT},
    "style": {"total": {"color": INK}},
    "axis": {
        **_QUIET, "domain": False, "gridColor": INK, "gridOpacity": 0.1, "tickColor": INK, "tickOpacity": 0.35,
        "labelFontSize": 11, "titleFontSize": 11, "titlePadding": 6,
    },
    "axisY": {"ticks": False, "minExtent": 34, "maxExtent": 34, "labelPadding": 6},
    "title": {"anchor": "start", "color": INK, "fontSize": 12.5, "fontWeight": 600, "offset": 8, "frame": "group"},
    "header": {"labelColor": INK, "labelFontSize": 11},
    "legend": {"labelColor": INK, "labelFontSize": 11, "symbolType": "stroke", "symbolStrokeWidth": 3},
}  # fmt: skip
DIRECT = 6  # up to this many groups are named at the end of their lines; more need a legend


@dataclass(frozen=True)
class Figure:
    """A chart with its place on the page. `name` is a safe file stem, `kind` the section it belongs to."""

    name: str
    kind: str
    title: str
    domain: str
    spec: dict[str, Any]


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


def draw(analysis: Analysis) -> list[Figure]:
    """Every figure the study has data for, in reading order."""
    # Altair checks every part against its schema at every step, ten times the work of drawing; tests do it once.
    with debug_mode(False):
        look = Look(analysis)
        made = [*_domains(analysis, look), *_others(analysis, look)]
    names = stems(f.name for f in made)
    return [replace(figure, name=stem) for stem, figure in zip(names, made, strict=True)]


def _domains(analysis: Analysis, look: Look) -> Iterator[Figure]:
    for domain in words.domains(analysis):
        curves = words.domain_curves(analysis, domain)
        if not curves:
            continue
        title = words.domain_title(domain)
        charts: dict[str, Any] = {"score": score(curves, look, title)}
        yield Figure(f"score-{domain}", "score", title, domain, look.spec(charts["score"], look.margin))
        if curves[0].probe == "generate":
            yield Figure(
                f"length-{domain}", "length", title, domain, look.spec(length(curves, look), look.margin)
            )
            chart = truncated(curves, look)
            yield Figure(f"truncated-{domain}", "truncated", title, domain, look.spec(chart, look.margin))
        if any(c.losses for c in curves):
            chart = decomposition(curves, look)
            yield Figure(f"decomposition-{domain}", "decomposition", title, domain, look.spec(chart))


def _others(analysis: Analysis, look: Look) -> Iterator[Figure]:
    for name, curves in _both_probes(analysis):
        title = words.clean(name)
        spec = look.spec(probes(curves, look, title))
        yield Figure(f"probes-{name}", "probes", title, curves[0].domain, spec)
    path = tradeoff(analysis, look)
    if path is not None:
        yield Figure(
            "tradeoff", "tradeoff", "Reasoning against safety", "safety", look.spec(path, look.margin)
        )
    for (name, probe), curves in _benchmarks(analysis).items():
        title = words.clean(name) + ("" if probe == "generate" else " (likelihood)")
        spec = look.spec(score(curves, look, title, height=130), look.margin)
        yield Figure(f"benchmark-{name}-{probe}", "benchmark", title, curves[0].domain, spec)
    whole = hero(analysis)
    if whole is not None:
        yield whole


def hero(analysis: Analysis) -> Figure | None:
    """The one picture of a study: every domain's curves with their bands. None without domain curves."""
    with debug_mode(False):
        look = Look(analysis)
        panels = []
        for domain in words.domains(analysis):
            curves = words.domain_curves(analysis, domain)
            if curves:
                chart = score(curves, look, words.domain_title(domain))
                panels.append(chart.properties(width=WIDTH, height=200))
        if not panels:
            return None
        whole = alt.concat(*panels, columns=2, spacing={"row": 24, "column": 24})
        return Figure("hero", "hero", "All domains", "", look.spec(whole))


def score(curves: Sequence[Curve], look: Look, title: str, height: int = 210) -> alt.LayerChart:
    """Scores over the steps with their bands; `mode` switches to completed responses or truncation bounds."""
    rows = [_row(c, p, look) for c in curves for p in c.points]
    ranges = {
        "all": _range([r["low"] for r in rows] + [r["high"] for r in rows]),
        "bounds": _range([r["lower"] for r in rows] + [r["upper"] for r in rows]),
        "completed": _range([r["completed"] for r in rows if r["completed"] is not None]),
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
        chart.mark_area(line=False).encode(
            x=x,
            y=alt.Y("lo:Q", scale=y["scale"], title=None),
            y2="hi:Q",
            color=colour,
            opacity=_focus(0.15, 0.03),
        ),
        chart.mark_line(strokeWidth=1.9).encode(x=x, y=y, color=colour, opacity=_focus(1, 0.15)),
        chart.mark_point(filled=True, size=26).encode(
            x=x, y=y, color=colour, opacity=_focus(1, 0.15), tooltip=_tips()
        ),
        chart.transform_filter("datum.trough && mode == 'all'")
        .mark_point(filled=False, size=130, strokeWidth=1.4)
        .encode(x=x, y=y, color=colour, opacity=_focus(1, 0.15)),
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
                opacity=_focus(1, 0.15),
            )
        )
    return alt.layer(*layers).properties(title=title, height=height, width=WIDTH)


def length(curves: Sequence[Curve], look: Look) -> alt.LayerChart:
    """Mean response length over the steps."""
    return _small(curves, look, "tokens", "tokens a response", alt.Axis(format="~s", tickCount=3), [0])


def truncated(curves: Sequence[Curve], look: Look) -> alt.LayerChart:
    """Share of responses cut off at the token limit over the steps."""
    return _small(curves, look, "truncated", "truncated", alt.Axis(format=".0%", tickCount=3), [0, 0.1])


def _small(
    curves: Sequence[Curve], look: Look, field: str, title: str, axis: alt.Axis, seen: list[float]
) -> alt.LayerChart:
    rows = [_row(c, p, look) for c in curves for p in c.points]
    top = max([*seen, *(r[field] for r in rows)]) * 1.05
    base = look.chart(rows).encode(
        x=look.x(None),
        y=alt.Y(f"{field}:Q", title=None, axis=axis, scale=alt.Scale(domain=[0, top], nice=False)),
        color=look.colour(legend=True),
    )
    line = base.mark_line(strokeWidth=1.5).encode(opacity=_focus(1, 0.15))
    dots = base.mark_point(filled=True, size=16).encode(opacity=_focus(1, 0.15), tooltip=_tips())
    return alt.layer(line, dots).properties(title=title, height=72, width=WIDTH)


def decomposition(curves: Sequence[Curve], look: Look) -> alt.TopLevelMixin:
    """What the change from the base is made of, step by step; one row per group, the total as a tick."""
    rows = [
        {
            "group": look.names[c.group], "step": loss.step, "part": PARTS[part][0],
            "points": _r(100 * getattr(loss, part)), "change": _r(100 * loss.change),
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


def probes(curves: Sequence[Curve], look: Look, title: str) -> alt.LayerChart:
    """One benchmark asked twice: generated (solid) and by the likelihood of the options (dashed)."""
    rows = [{**_row(c, p, look), "probe": _PROBES[c.probe]} for c in curves for p in c.points]
    low, high = _range([r["low"] for r in rows] + [r["high"] for r in rows])
    base = look.chart(rows).encode(
        x=look.x(),
        y=alt.Y("score:Q", title=None, axis=alt.Axis(format=".0%", tickCount=5), scale=alt.Scale(domain=[low, high], nice=False)),
        color=look.colour(),
        opacity=_focus(1, 0.15),
    )  # fmt: skip
    dash = alt.StrokeDash(
        "probe:N",
        scale=alt.Scale(domain=list(_PROBES.values()), range=[[1, 0], [5, 3]]),
        legend=alt.Legend(title=None, orient="bottom"),
    )
    tips = [alt.Tooltip("probe:N"), *_tips()]
    line = base.mark_line(strokeWidth=1.8).encode(strokeDash=dash)
    dots = base.mark_point(filled=True, size=20).encode(tooltip=tips)
    return alt.layer(line, dots).properties(title=title, height=170, width=WIDTH)


_PROBES = {"generate": "generated", "likelihood": "by likelihood"}


def tradeoff(analysis: Analysis, look: Look) -> alt.LayerChart | None:
    """The path of each group through reasoning and safety, from the base to the last checkpoint."""
    reasoning = words.domain_curves(analysis, "ood_reasoning")
    title = "reasoning, out of domain"
    if not reasoning:
        reasoning, title = words.domain_curves(analysis, "in_domain"), "in domain"
    safe = {c.group: {p.step: p for p in c.points} for c in words.domain_curves(analysis, "safety")}
    rows = []
    for c in reasoning:
        both = [(p, safe[c.group][p.step]) for p in c.points if p.step in safe.get(c.group, {})]
        for p, s in both:
            rows.append(
                {
                    "group": look.names[c.group], "step": p.step, "reasoning": _r(p.score), "safety": _r(s.score),
                    "rlow": _r(p.low), "rhigh": _r(p.high), "slow": _r(s.low), "shigh": _r(s.high),
                    "first": p is both[0][0], "last": p is both[-1][0],
                }
            )  # fmt: skip
    if not rows:
        return None
    xs = _range([r[k] for r in rows for k in (("rlow", "rhigh") if r["last"] else ("reasoning",))])
    ys = _range([r[k] for r in rows for k in (("slow", "shigh") if r["last"] else ("safety",))])
    x = alt.X(
        "reasoning:Q",
        title=f"{title} →",
        axis=alt.Axis(format=".0%", tickCount=6),
        scale=alt.Scale(domain=list(xs), nice=False),
    )
    y = alt.Y(
        "safety:Q",
        title="safety →",
        axis=alt.Axis(format=".0%", tickCount=5),
        scale=alt.Scale(domain=list(ys), nice=False),
    )
    base = look.chart(rows).encode(color=look.colour(legend=not look.direct), opacity=_focus(1, 0.15))
    end = base.transform_filter("datum.last")
    tips = [
        alt.Tooltip("group:N"), alt.Tooltip("step:Q"),
        alt.Tooltip("reasoning:Q", format=".1%"), alt.Tooltip("safety:Q", format=".1%"),
    ]  # fmt: skip
    layers = [
        end.mark_rule(strokeWidth=1, strokeOpacity=0.6).encode(x=alt.X("rlow:Q", scale=x["scale"], title=x["title"]), x2="rhigh:Q", y=y),
        end.mark_rule(strokeWidth=1, strokeOpacity=0.6).encode(y=alt.Y("slow:Q", scale=y["scale"], title=y["title"]), y2="shigh:Q", x=x),
        base.mark_line(strokeWidth=1.8).encode(x=x, y=y, order="step:Q"),
        base.transform_filter("!datum.first && !datum.last").mark_point(filled=True, size=22).encode(x=x, y=y, tooltip=tips),
        end.mark_point(filled=True, size=95).encode(x=x, y=y, tooltip=tips),
        base.transform_filter("datum.first").mark_point(filled=True, size=80, shape="diamond").encode(x=x, y=y, color=alt.value(FAINT), tooltip=tips),
        base.transform_filter("datum.last").mark_text(align="left", dx=9, dy=-9, fontSize=11, fontWeight=600).encode(x=x, y=y, text="group:N"),
    ]  # fmt: skip
    return alt.layer(*layers).properties(title="Reasoning against safety", height=300, width=620)


def _row(curve: Curve, p: Any, look: Look) -> dict[str, Any]:
    shape = curve.shape
    dips = shape is not None and shape.label.startswith("dip") and shape.trough_step == p.step
    return {
        "group": look.names[curve.group], "step": p.step, "score": _r(p.score), "low": _r(p.low),
        "high": _r(p.high), "completed": None if p.completed is None else _r(p.completed),
        "lower": _r(p.lower_bound), "upper": _r(p.upper_bound), "truncated": _r(p.truncated),
        "missing": _r(p.missing), "tokens": round(p.tokens, 1), "trough": dips,
        "last": p is curve.points[-1], "label_y": _r(p.score),
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
        r["label_y"] = _r(value + min(shift, -overshoot))


def _pick(by_mode: dict[str, Any]) -> str:
    return f"mode == 'bounds' ? {by_mode['bounds']} : mode == 'completed' ? {by_mode['completed']} : {by_mode['all']}"


def _focus(full: float, dimmed: float) -> Any:
    return alt.condition("focus == '' || datum.group == focus", alt.value(full), alt.value(dimmed))


def _tips() -> list[alt.Tooltip]:
    share = {k: ".1%" for k in ("score", "low", "high", "completed", "truncated", "missing")}
    tips = [alt.Tooltip(f"{k}:Q", format=f) for k, f in {**share, "tokens": ".0f"}.items()]
    return [alt.Tooltip("group:N"), alt.Tooltip("step:Q"), *tips]


def _range(values: Iterable[float]) -> tuple[float, float]:
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    pad = max(0.06 * (high - low), 0.01)
    return _r(max(0.0, low - pad)), _r(min(1.0, high + pad) if high <= 1 else high + pad)


def _r(value: float) -> float:
    return round(value, 5) + 0.0


def _benchmarks(analysis: Analysis) -> dict[tuple[str, str], list[Curve]]:
    order = {d: i for i, d in enumerate(words.domains(analysis))}
    found: dict[tuple[str, str], list[Curve]] = {}
    for c in sorted(analysis.curves, key=lambda c: (order[c.domain], c.name, c.probe)):
        if c.level == "benchmark" and c.points:
            found.setdefault((c.name, c.probe), []).append(c)
    return found


def _both_probes(analysis: Analysis) -> list[tuple[str, list[Curve]]]:
    by_name: dict[str, list[Curve]] = {}
    for (name, _), curves in _benchmarks(analysis).items():
        by_name.setdefault(name, []).extend(curves)
    return [(n, cs) for n, cs in by_name.items() if {c.probe for c in cs} >= set(_PROBES)]


def stems(names: Iterable[str]) -> list[str]:
    """File stems that stay inside their folder and differ from one another, also where case is ignored."""
    found: list[str] = []
    for name in names:
        stem = base = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:80] or "figure"
        count = 1
        while stem in found:
            count += 1
            stem = f"{base}-{count}"
        found.append(stem)
    return found
