"""The analysis in a terminal: curves per domain, then the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dipscope.analysis.results import Analysis, Curve, Finding, dipped
from dipscope.report import words

STYLES = {"supported": "green", "contradicted": "red", "inconclusive": "yellow", "not tested": "dim"}
BARS = "▁▂▃▄▅▆▇█"
WIDE, MEDIUM = 100, 64  # columns from which a table keeps everything, and from which it stays a table


def show(analysis: Analysis, console: Console) -> None:
    """Print the curves of every domain and the ledger of findings, fitted to the console's width."""
    console.print(Text(words.clean(analysis.study), style="bold"))
    console.print(Text(words.summary(analysis)))
    names = words.short_names(analysis.curves)
    for domain in words.domains(analysis):
        curves = words.domain_curves(analysis, domain)
        if curves:
            console.print()
            console.print(Text(words.domain_title(domain), style="bold"))
            console.print(_curves(curves, names, console.width))
    if analysis.findings:
        console.print()
        console.print(Text("Findings", style="bold"))
        console.print(_ledger(analysis.findings, console.width))
    single = {c.group for c in analysis.curves if len(c.seeds) == 1}
    if single:
        console.print(
            Text(
                "One training seed: intervals cover the choice of items, not of training runs.",
                style="yellow",
            )
        )


def spark(values: Sequence[float], low: float, high: float) -> str:
    """A curve as one line of bars between two levels, which the lowest and the highest bar stand for."""
    if high - low < 1e-9:
        return BARS[len(BARS) // 2] * len(values)
    return "".join(BARS[round((v - low) / (high - low) * (len(BARS) - 1))] for v in values)


def _spark(curve: Curve, beside: Sequence[Curve]) -> Text:
    """The last points of a curve on the scale of all curves of its domain, so that heights compare."""
    scores = [p.score for c in beside for p in c.points]
    return Text(spark([p.score for p in curve.points][-24:], min(scores), max(scores)), style="cyan")


def _curves(curves: Sequence[Curve], names: dict[str, str], width: int) -> RenderableType:
    if width < MEDIUM:
        return Group(*(_stacked_curve(c, names[c.group], curves) for c in curves))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("group", overflow="fold")
    if width >= WIDE:
        table.add_column("curve", no_wrap=True)
    for head in ("base", "lowest", "last", "±"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("shape", overflow="fold")
    for c in curves:
        base, trough, last, half = _numbers(c)
        cells = [Text(names[c.group]), Text(base), Text(trough), Text(last), Text(half), _shape(c)]
        if width >= WIDE:
            cells.insert(1, _spark(c, curves))
        table.add_row(*cells)
    return table


def _stacked_curve(c: Curve, name: str, curves: Sequence[Curve]) -> RenderableType:
    base, trough, last, half = _numbers(c)
    line = f"{base} → {trough} → {last} ± {half}"
    body = Group(_spark(c, curves), Text(line), _shape(c))
    return Group(Text(name, style="bold"), Padding(body, (0, 0, 0, 2)))


def _numbers(c: Curve) -> tuple[str, str, str, str]:
    """Base, trough with its step, last, and the last point's half band, in percent."""
    first, last = c.points[0], c.points[-1]
    half = (last.high - last.low) / 2
    inner = c.points[1:-1]
    lowest = min(inner, key=lambda p: p.score) if inner else None
    trough = f"{words.percent(lowest.score, half)} @{lowest.step}" if lowest else "–"
    return (
        words.percent(first.score, half), trough, words.percent(last.score, half),
        words.percent(half).removesuffix(" %"),
    )  # fmt: skip


def _shape(c: Curve) -> Text:
    if c.shape is None:
        return Text("–", style="dim")
    small = " (small n)" if c.shape.small_n else ""
    first = "dip" if dipped(c.shape.label) else c.shape.label.split("-")[0]
    style = {"dip": "yellow", "fall": "red", "rise": "green"}.get(first, "dim")
    return Text(words.SHAPES[c.shape.label] + small, style=style)


def _ledger(findings: Sequence[Finding], width: int) -> RenderableType:
    parts: list[RenderableType] = []
    for claim, group in words.by_claim(findings).items():
        shared = words.common([f.caveats for f in group])
        head = Text(words.clean(claim), style="bold")
        for caveat in shared:
            head.append(f"\n! {words.clean(caveat)}", style="not bold yellow")
        rows = _rows(group, shared) if width >= MEDIUM else Group(*(_stacked(f, shared) for f in group))
        parts.append(Group(head, Padding(rows, (0, 0, 1, 2))))
    return Group(*parts)


def _rows(group: Sequence[Finding], shared: Sequence[str]) -> RenderableType:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(no_wrap=True, width=12)
    table.add_column(ratio=5, overflow="fold")
    table.add_column(ratio=4, overflow="fold")
    for f in group:
        table.add_row(Text(f.verdict, style=STYLES[f.verdict]), _scope(f, shared), _effect(f))
    return table


def _stacked(f: Finding, shared: Sequence[str]) -> RenderableType:
    body = [_scope(f, shared)] + ([_effect(f)] if f.effect is not None else [])
    return Group(Text(f.verdict, style=STYLES[f.verdict]), Padding(Group(*body), (0, 0, 0, 2)))


def _scope(f: Finding, shared: Sequence[str]) -> Text:
    lines = [Text(words.clean(f.scope))] if f.scope else []
    lines += [Text(f"! {words.clean(c)}", style="yellow") for c in f.caveats if c not in shared]
    if f.verdict == "not tested" and f.needs:
        lines.append(Text(f"would test it: {words.clean(f.needs)}", style="dim"))
    return Text("\n").join(lines)


def _effect(f: Finding) -> Text:
    if f.effect is None:
        return Text("–", style="dim")
    text = Text(words.estimate(f.effect, f.unit))
    details = [words.probability(f.p)] if f.p is not None else []
    if f.items:
        details += [f"n = {f.items}", f"{f.seeds} seed{'' if f.seeds == 1 else 's'}"]
    if details:
        text.append("\n" + ", ".join(details), style="dim")
    return text
