"""`dipscope audit`: a second, independent checker on a sample of stored verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from dipscope.plan import BenchmarkPlan, Plan
    from dipscope.scoring.audit import Checked, Disagreement, Kind, Verdict
    from dipscope.workspace import Workspace

LISTED = 50  # disagreements on the screen; all are in the JSON
LONGEST = 120  # characters of a text on the screen


def audit(
    workspace: Annotated[Path, typer.Argument(help="A study's workspace.")],
    sample: Annotated[
        int,
        typer.Option(min=1, help="Verdicts to check; at least one of each benchmark, verdict and step is."),
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Another seed draws another sample.")] = 0,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object last on standard output.")
    ] = False,
) -> None:
    """Check a sample of stored verdicts a second time, by code that shares nothing with the first checker.

    Numbers, formulas and Countdown have a second checker. The rate of disagreement is weighted back to all
    verdicts, and every disagreement is listed: one of the two is wrong there, or a convention differs.

    Example: dipscope audit workspaces/mine --sample 2000
    """
    import json
    from dataclasses import asdict

    from rich.console import Console

    from dipscope import status
    from dipscope.scoring.audit import estimate
    from dipscope.scoring.audit import sample as draw

    plan, place = status.recall(workspace)
    verdicts, names, without = _verdicts(plan, place)
    checked = draw(verdicts, sample, seed)
    parts = {}
    for planned in plan.benchmarks:
        mine = [c for c in checked if c.verdict.stratum[0] == planned.benchmark.name]
        if mine:
            parts[planned.benchmark.name] = estimate(mine)
    whole = estimate(checked)
    differing = [_described(c, names) for c in checked if c.disagrees]
    _show(Console(stderr=json_), parts, whole, differing, without)
    if json_:
        told = {
            "seed": seed,
            "all": asdict(whole),
            "benchmarks": {name: asdict(part) for name, part in parts.items()},
            "disagreements": differing,
            "not_audited": without,
        }
        print(json.dumps(told))


def _verdicts(plan: Plan, place: Workspace) -> tuple[list[Verdict], dict[str, tuple[str, ...]], list[str]]:
    """Stored verdicts that have a second checker; what each is of; and the benchmarks that have none.

    The names are benchmark, run and step, item, and sample, by the key of the verdict.

    Raises:
        DipscopeError: no benchmark has one, there are no records, or a shard is damaged.
    """
    from dipscope import stored
    from dipscope.errors import DipscopeError
    from dipscope.scoring.audit import Verdict

    golds = {b.benchmark.name: _golds(plan, b) for b in plan.benchmarks}
    without = [name for name, known in golds.items() if not known]
    chosen = [b for b in plan.benchmarks if golds[b.benchmark.name]]
    if not chosen:
        fix = "Numbers, formulas and Countdown have one, such as paper/math500."
        raise DipscopeError("no benchmark of the study has a second checker", ", ".join(without), fix)
    table = stored.generated(plan, place, chosen)
    points = {point.checkpoint: point for point in stored.points(plan, place)}
    found: list[Verdict] = []
    names: dict[str, tuple[str, ...]] = {}
    for row in table.iter_rows(named=True):
        benchmark, point = row["benchmark"], points[row["checkpoint"]]
        if row["verdict"] not in ("correct", "wrong") or row["item"] not in golds[benchmark]:
            continue
        kind, gold = golds[benchmark][row["item"]]
        key = "\t".join(str(row[name]) for name in stored.KEY)
        stratum, correct = (benchmark, row["verdict"], point.step), row["verdict"] == "correct"
        found.append(Verdict(key, stratum, kind, gold, row["extracted"], correct))
        names[key] = (benchmark, point.name, row["item"], str(row["sample"]))
    return found, names, without


def _golds(plan: Plan, planned: BenchmarkPlan) -> dict[str, tuple[Kind, Any]]:
    """By item the second checker and the gold answer that it takes; empty where a benchmark has none."""
    from dipscope import stored
    from dipscope.benchmarks import registry
    from dipscope.benchmarks.math import Mathematics
    from dipscope.scoring import verify

    benchmark = planned.benchmark
    if isinstance(benchmark, Mathematics):
        # Under the paper's protocol the gold is a whole solution; the answer alone is that of the strict one.
        strict = registry.get(benchmark.name, "strict", planned.source.get("path"))
        return {key: ("number", item.gold) for key, item in stored.items(plan, planned, strict).items()}
    ours = benchmark.name.startswith(("organism/", "small/"))
    if not ours and verify.VERSION not in benchmark.scorer:
        return {}
    found: dict[str, tuple[Kind, Any]] = {}
    for key, item in stored.items(plan, planned).items():
        if _is_countdown(item.gold):
            found[key] = "expression", item.gold
        elif not ours or _is_number(item.gold):
            found[key] = "number", item.gold
    return found


def _is_countdown(gold: Any) -> bool:
    import json

    if isinstance(gold, str) and gold.startswith("{"):
        try:
            gold = json.loads(gold)
        except ValueError:
            return False
    return isinstance(gold, dict) and {"numbers", "target"} <= set(gold)


def _is_number(gold: Any) -> bool:
    import re

    return not isinstance(gold, bool) and re.fullmatch(r"-?\d+(?:\.\d+)?", str(gold)) is not None


def _described(checked: Checked, names: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    verdict = checked.verdict
    benchmark, checkpoint, item, number = names[verdict.key]
    said = {True: "correct", False: "wrong"}
    return {
        "benchmark": benchmark,
        "checkpoint": checkpoint,
        "item": item,
        "sample": int(number),
        "gold": verdict.gold,
        "extracted": verdict.said,
        "stored": said[verdict.correct],
        "second": said[bool(checked.second)],
    }


def _show(
    console: Console,
    parts: dict[str, Disagreement],
    whole: Disagreement,
    differing: Sequence[dict[str, Any]],
    without: Sequence[str],
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("benchmark", overflow="fold")
    for head in ("verdicts", "checked", "cannot say", "disagree", "rate (95 %)"):
        table.add_column(head, justify="right")
    shown = [*parts.items(), ("all", whole)] if len(parts) != 1 else list(parts.items())
    for name, part in shown:
        rate = "none judged"
        if part.rate is not None:
            rate = f"{part.rate:.2%} ({part.low:.2%} to {part.high:.2%})"
        cells = (
            name, f"{part.verdicts:,}", f"{part.sampled:,}", f"{part.cannot_say:.1%}",
            f"{part.disagreements:,} of {part.judged:,}", rate,
        )  # fmt: skip
        table.add_row(*map(Text, cells))
    if parts:
        console.print(table)
        console.print(Text(f"{whole.pairs:,} different pairs of gold and answer were judged twice."))
    for case in differing[:LISTED]:
        where = f"{case['benchmark']} {case['checkpoint']}, item {case['item']}, sample {case['sample']}"
        texts = f"gold {_visible(case['gold'])} | answer {_visible(case['extracted'])}"
        console.print(Text(f"{where}: stored {case['stored']}, second {case['second']} | {texts}"))
    if len(differing) > LISTED:
        console.print(Text(f"{len(differing) - LISTED:,} more disagreements are listed by --json."))
    if without:
        console.print(Text(f"Not audited, there is no second checker: {', '.join(without)}."))


def _visible(text: Any) -> str:
    """A text of a model or a data set on one line, without anything that could steer a terminal."""
    from dipscope.report import words

    line = " ".join(words.clean(str(text)).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
