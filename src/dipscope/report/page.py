"""The page: one file that opens from disk, with its figures beside it as SVG, PNG and Vega-Lite."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import polars as pl
import vl_convert
from markupsafe import Markup

from dipscope.analysis.results import Analysis, Finding
from dipscope.report import export, figures, samples, words
from dipscope.report.look import PARTS, Look
from dipscope.workspace import write_atomic

# Some figures are referred to by the name of the section that shows them.
_SECTIONS = {"curves": "curves", "lengths": "curves", "probes": "probes", "decomposition": "decomposition"}


def write(
    analysis: Analysis,
    records: pl.DataFrame,
    checkpoints: pl.DataFrame,
    out: Path,
    prompts: samples.Prompts = MappingProxyType({}),
) -> Path:
    """Write `out/index.html` and `out/figures/NAME.{svg,png,vl.json}`; return the page's path.

    Args:
        analysis: what the page shows.
        records: the record table, from which samples are chosen.
        checkpoints: run, group, model, dataset, recipe, seed, step, tokens, variant, replay, checkpoint.
        out: folder of the report; made if missing.
        prompts: the questions behind the records, by (benchmark, item), shown with the samples.

    The bytes depend on nothing but the arguments and the versions of the libraries.

    Raises:
        DipscopeError: the folder cannot be written.
    """
    drawn = figures.draw(analysis)
    for figure in drawn:
        spec = json.dumps(figure.spec, indent=1, sort_keys=True)
        write_atomic(out / "figures" / f"{figure.name}.vl.json", spec)
        export.save(figure.spec, out / "figures", figure.name)
    page = out / "index.html"
    write_atomic(page, render(analysis, records, checkpoints, drawn, prompts))
    return page


def render(
    analysis: Analysis,
    records: pl.DataFrame,
    checkpoints: pl.DataFrame,
    drawn: Sequence[figures.Figure],
    prompts: samples.Prompts = MappingProxyType({}),
) -> str:
    """The HTML of the page."""
    # Text of models reaches the page through autoescape or as inert JSON; the policy below, which admits
    # only these two scripts by their hashes, holds even if both should fail.
    scripts = [
        _script(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", export.VEGA_LITE)),
        _script(_template("page.js")),
    ]
    look = Look(analysis)
    chosen = samples.choose(records, checkpoints, prompts)
    html = (
        _environment()
        .get_template("page.html")
        .render(
            title=words.clean(analysis.study),
            summary=words.summary(analysis),
            facts=_facts(analysis, checkpoints),
            caveats=_caveats(analysis),
            notes=[words.clean(n) for n in analysis.notes],
            preflight=[
                (words.clean(name), [words.clean(n) for n in said])
                for name, said in analysis.meta.get("preflight", {}).items()
            ],
            digest=analysis.records_digest,
            groups=[
                {"name": words.clean(g), "short": s, "colour": look.colours[s]} for g, s in look.names.items()
            ],
            parts=[{"name": n, "colour": c} for n, c in PARTS.values()],
            domains=_domains(analysis, drawn),
            figures={k: [f for f in drawn if f.kind == k] for k in {f.kind for f in drawn}},
            drawn=drawn,
            tally=words.tally(analysis.findings),
            claims=_ledger(analysis.findings, drawn),
            has_samples=bool(chosen["benchmarks"]),
            specs=Markup(samples.embed({f.name: f.spec for f in drawn if f.kind != "hero"})),
            samples=Markup(samples.embed(chosen)),
            style=Markup(_template("page.css")),
            scripts=[Markup(s) for s in scripts],
            policy="; ".join(
                [
                    "default-src 'none'", "style-src 'unsafe-inline'", "img-src data:", "base-uri 'none'",
                    "form-action 'none'", f"script-src 'unsafe-eval' {' '.join(map(_hash, scripts))}",
                ]
            ),
        )
    )  # fmt: skip
    return re.sub("[\ud800-\udfff]", "\ufffd", html)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_template), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def _template(name: str) -> str:
    return (resources.files("dipscope.report") / "templates" / name).read_text(encoding="utf-8")


def _script(source: str) -> str:
    """Script text that nothing inside ends early; equal to what the browser hashes."""
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"<(?=/script|script|!--)", r"\\x3c", source, flags=re.IGNORECASE)


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _facts(analysis: Analysis, checkpoints: pl.DataFrame) -> list[tuple[str, str]]:
    bench = {c.name: c.items for c in analysis.curves if c.level == "benchmark"}
    seeds = checkpoints["seed"].n_unique()
    counted = [
        (checkpoints["group"].n_unique(), "group"),
        (seeds, "training seed"),
        (checkpoints["checkpoint"].n_unique(), "checkpoint"),
        (len(bench), "benchmark"),
        (sum(bench.values()), "item"),
        (analysis.records, "record"),
    ]
    return [(f"{n:,}".replace(",", "\u202f"), word if n == 1 else f"{word}s") for n, word in counted]


def _caveats(analysis: Analysis) -> list[str]:
    """What a reader must know before the first figure."""
    single = sorted({words.clean(c.group) for c in analysis.curves if len(c.seeds) == 1})
    found = []
    if single:
        whose = (
            "Every group has" if len(single) == len({c.group for c in analysis.curves}) else "; ".join(single)
        )
        verb = "" if whose.startswith("Every") else " has" if len(single) == 1 else " have"
        found.append(
            f"{whose}{verb} one training seed. Bands and intervals then cover the choice of items, "
            "not what another training run would have given."
        )
    covered = min((p.coverage for c in analysis.curves for p in c.points), default=1.0)
    if covered < 0.98:
        found.append(f"At the worst point only {words.percent(covered)} of the responses could be judged.")
    return found


def _domains(analysis: Analysis, drawn: Sequence[figures.Figure]) -> list[dict[str, Any]]:
    names, found = words.short_names(analysis.curves), []
    for domain in words.domains(analysis):
        curves = words.domain_curves(analysis, domain)
        found.append(
            {
                "title": words.domain_title(domain),
                "likelihood": bool(curves) and curves[0].probe == "likelihood",
                "figures": {f.kind: f for f in drawn if f.domain == domain},
                "shapes": [
                    {"group": names[c.group], "text": words.shape_text(c.shape), "small": c.shape.small_n}
                    for c in curves
                    if c.shape is not None
                ],
            }
        )
    return found


def _ledger(findings: Sequence[Finding], drawn: Sequence[figures.Figure]) -> list[dict[str, Any]]:
    """Claims with their findings as the page shows them; intervals of one unit share a scale."""
    reach: dict[str, float] = {}
    for f in findings:
        if f.effect is not None:
            null = _null(f)
            reach[f.unit] = max(reach.get(f.unit, 0.0), f.effect.high - null, null - f.effect.low)
    claims = []
    for claim, group in words.by_claim(findings).items():
        shared = words.common([f.caveats for f in group])
        tests = list(dict.fromkeys(words.clean(f.test) for f in group if f.test))
        claims.append(
            {
                "claim": words.clean(claim),
                "test": "; ".join(tests),
                "caveats": [words.clean(c) for c in shared],
                "rows": [_row(f, shared, reach.get(f.unit, 0.0), drawn) for f in group],
            }
        )
    return claims


def _row(f: Finding, shared: Sequence[str], reach: float, drawn: Sequence[figures.Figure]) -> dict[str, Any]:
    row = {
        "scope": words.clean(f.scope), "verdict": f.verdict, "needs": words.clean(f.needs), "count": f.items,
        "seeds": f.seeds, "caveats": [words.clean(c) for c in f.caveats if c not in shared],
        "link": _link(f.figure, drawn), "effect": words.estimate(f.effect, f.unit) if f.effect else "",
        "p": words.probability(f.p) if f.p is not None else "", "bar": None,
    }  # fmt: skip
    if f.effect is not None and reach > 0:
        ends = (f.effect.low, f.effect.value, f.effect.high)
        low, dot, high = (50 + 50 * (x - _null(f)) / reach for x in ends)
        row["bar"] = {"left": f"{low:.1f}", "width": f"{high - low:.1f}", "dot": f"{dot:.1f}"}
    return row


def _null(f: Finding) -> float:
    return 1.0 if words.is_ratio(f.unit) else 0.0


def _link(reference: str, drawn: Sequence[figures.Figure]) -> str:
    """The element a finding's figure is shown in, empty when there is none."""
    kind, _, name = reference.partition(":")
    known = {f.name for f in drawn}
    for stem in figures.stems([reference, f"score-{name}", f"benchmark-{name}-generate"]):
        if stem in known:
            return f"fig-{stem}"
    return _SECTIONS.get(kind, "")
