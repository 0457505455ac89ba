"""`dipscope score`: judge stored responses again, by today's scorer or under another protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

    from dipscope.plan import BenchmarkPlan, Plan
    from dipscope.rescore import Rescored
    from dipscope.scoring.base import Benchmark

FOLDER = "rescored"


def score(
    workspace: Annotated[Path, typer.Argument(help="A study's workspace.")],
    protocol: Annotated[
        str | None,
        typer.Option(help="strict or paper, for published benchmarks (default: each one's own)."),
    ] = None,
    benchmarks: Annotated[
        list[str] | None,
        typer.Option(help="Names or globs, such as 'paper/*'; may be given again (default: all)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Parquet file of the rescored records (default: below WORKSPACE/rescored)."),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object last on standard output.")
    ] = False,
) -> None:
    """Judge stored responses again; nothing is generated, and the stored records stay as they are.

    Example: dipscope score workspaces/mine --protocol paper --benchmarks 'paper/*'
    """
    import io
    import json

    from rich.console import Console
    from rich.text import Text

    from dipscope import status, stored
    from dipscope.progress import bar
    from dipscope.rescore import rescore, summary
    from dipscope.workspace import write_atomic

    plan, place = status.recall(workspace)
    chosen, passed = _chosen(plan, benchmarks, protocol)
    table = stored.generated(plan, place, chosen)
    present = set(table["benchmark"].unique())
    judges = {}
    for planned in chosen:
        if planned.benchmark.name in present:
            judge = _judge(planned, protocol)
            judges[planned.benchmark.name] = judge, stored.items(plan, planned, judge)
    with bar("scoring") as report:
        rescored, reasons = rescore(table, judges, report)
    results = summary(rescored, stored.points(plan, place), list(judges))
    target = out or place.root / FOLDER / f"{protocol or 'today'}.parquet"
    buffer = io.BytesIO()
    rescored.write_parquet(buffer, compression="zstd")
    write_atomic(target, buffer.getvalue())

    console = Console(stderr=json_)
    console.print(_table(results))
    notes = _notes(results, table)
    notes += [f"{count:,} could not be judged: {why}." for why, count in reasons.most_common(5)]
    notes += [f"Not judged again, they have one protocol: {', '.join(passed)}."] if passed else []
    for note in notes:
        console.print(Text(note))
    console.print(Text(f"Records: {target}"), soft_wrap=True)
    if json_:
        told = {"records": str(target), "results": [r.as_dict() for r in results], "notes": notes}
        print(json.dumps(told))


def _chosen(
    plan: Plan, patterns: Sequence[str] | None, protocol: str | None
) -> tuple[list[BenchmarkPlan], list[str]]:
    """The benchmarks of a study that are judged again, and the names of those that have no protocols."""
    from fnmatch import fnmatchcase

    from dipscope.benchmarks.published import PROTOCOLS, Published
    from dipscope.errors import DipscopeError

    if protocol is not None and protocol not in PROTOCOLS:
        fix = f"Protocols are {' and '.join(PROTOCOLS)}."
        raise DipscopeError(f"there is no protocol '{protocol}'", "--protocol", fix)
    named = [
        b
        for b in plan.benchmarks
        if patterns is None or any(fnmatchcase(b.benchmark.name, pattern) for pattern in patterns)
    ]
    names = ", ".join(b.benchmark.name for b in plan.benchmarks)
    if not named:
        fix = f"The study measures {names}."
        raise DipscopeError("no benchmark of the study fits", "--benchmarks", fix)
    if protocol is None:
        return named, []
    chosen = [b for b in named if isinstance(b.benchmark, Published)]
    if not chosen:
        fix = "Leave --protocol out: they are then judged by today's scorers."
        raise DipscopeError("none of these benchmarks is a published one, with protocols", names, fix)
    return chosen, [b.benchmark.name for b in named if b not in chosen]


def _judge(planned: BenchmarkPlan, protocol: str | None) -> Benchmark:
    from dipscope.benchmarks import registry

    if protocol is None:
        return planned.benchmark
    return registry.get(planned.benchmark.name, protocol, planned.source.get("path"))


def _table(results: Sequence[Rescored]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from dipscope.judging.store import protocol

    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in ("benchmark", "checkpoint", "protocol"):
        table.add_column(head, overflow="fold")
    for head in ("stored", "rescored", "changed"):
        table.add_column(head, justify="right", no_wrap=True)
    for r in results:
        was = "/".join(sorted({protocol(scorer) or "-" for scorer in r.stored_scorers}))
        now = protocol(r.scorer) or "-"
        cells = (
            r.benchmark, r.name, was if was == now else f"{was} → {now}", _share(r.stored_score),
            _share(r.score), f"{r.changed:,} of {r.records:,}",
        )  # fmt: skip
        table.add_row(*map(Text, cells))
    return table


def _share(score: float | None) -> str:
    return "none" if score is None else f"{score:.3f}"


def _notes(results: Sequence[Rescored], table: pl.DataFrame) -> list[str]:
    """What the table does not show: how verdicts changed, scorers, prompts, errors, and what was left out."""
    from collections import Counter

    notes = []
    for name in dict.fromkeys(r.benchmark for r in results):
        mine = [r for r in results if r.benchmark == name]
        changes: Counter[str] = sum((Counter(r.changes) for r in mine), Counter())
        if changes:
            notes.append(f"{name}: {', '.join(f'{n:,} {how}' for how, n in sorted(changes.items()))}.")
        were = sorted({scorer for r in mine for scorer in r.stored_scorers})
        if were != [mine[0].scorer]:
            notes.append(f"{name}: stored verdicts by {', '.join(were)}; now by {mine[0].scorer}.")
        if other := sum(r.other_prompt for r in mine):
            notes.append(
                f"{name}: {other:,} responses answer the stored protocol's prompt, which the other words "
                "differently: only reading and verdict are of the other protocol."
            )
        judged = sum(r.records for r in mine)
        if lost := table["benchmark"].to_list().count(name) - judged:
            notes.append(f"{name}: {lost:,} records left out, whose items it does not have there.")
        if errors := sum(r.errors for r in mine):
            notes.append(f"{name}: {errors:,} verdicts are errors and do not count.")
    return notes
