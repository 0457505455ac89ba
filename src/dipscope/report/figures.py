"""One Vega-Altair chart per figure: the page, the SVG and the PNG all come from the same specification."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

from dipscope.analysis.results import Analysis, Curve
from dipscope.report import words
from dipscope.report.contrasts import PROBES, decomposition, probes, tradeoff
from dipscope.report.curves import length, score, truncated
from dipscope.report.look import WIDTH, Look


@dataclass(frozen=True)
class Figure:
    """A chart with its place on the page. `name` is a safe file stem, `kind` the section it belongs to."""

    name: str
    kind: str
    title: str
    domain: str
    spec: dict[str, Any]


def draw(analysis: Analysis) -> list[Figure]:
    """Every figure the study has data for, in reading order."""
    # Altair would check every part against its schema at every step; the tests do it, once per figure.
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
        whole = score(curves, look, title)
        yield Figure(f"score-{domain}", "score", title, domain, look.spec(whole, look.margin))
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
    return [(n, cs) for n, cs in by_name.items() if {c.probe for c in cs} >= set(PROBES)]


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
