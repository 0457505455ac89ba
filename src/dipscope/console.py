"""What the verbs print besides an analysis: plans, states, announcements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dipscope.plan import VERSIONS
from dipscope.progress import duration, size

if TYPE_CHECKING:
    from dipscope.costs import Cost, Total
    from dipscope.study import Study


def show_plan(study: Study, costs: Sequence[Cost], total: Total) -> None:
    """Print the resolved study and what its cells will take."""
    console = Console()
    console.print(Text(study.study.name, style="bold"), Text(study.study.description))
    facts = Table.grid(padding=(0, 2))
    for label, names in (("models", study.models), ("datasets", study.datasets), ("recipes", study.recipes)):
        for name, spec in names.items():
            changed = spec.model_dump(mode="json", exclude_defaults=True)
            facts.add_row(label, name, Text(", ".join(f"{k} = {v}" for k, v in changed.items())))
            label = ""
    facts.add_row("seeds", "", ", ".join(map(str, study.study.seeds)))
    facts.add_row("benchmarks", "", ", ".join(study.measure.benchmarks))
    console.print(facts)
    table = Table("kind", "cells", "tokens", "time", "disk", box=None, pad_edge=False)
    for kind in VERSIONS:
        some = [c for c in costs if c.kind == kind]
        if some:
            seconds = sum(c.seconds for c in some)
            table.add_row(
                kind,
                str(len(some)),
                f"{sum(c.tokens for c in some):,}",
                duration(seconds),
                size(sum(c.disk for c in some)),
            )
    console.print(table)
    console.print(Text(_left(total)))


def announce(study: Study, total: Total, root: Path) -> None:
    """Say on standard error what is about to be done and what it is estimated to take."""
    console = Console(stderr=True)
    runs = len(study.expand())
    console.print(Text(f"{study.study.name}: {runs} runs in {root}. {_left(total)}"))


def show_status(rows: Sequence[dict[str, Any]], page: Path | None) -> None:
    """Print how many cells are done, and name those that are not."""
    console = Console()
    counts = Counter(r["state"] for r in rows)
    console.print(Text(", ".join(f"{n} {state}" for state, n in counts.items()) + f" of {len(rows)} cells"))
    for row in rows:
        if row["state"] != "done":
            console.print(Text(f"  {row['state']:<8} {row['kind']:<8} {row['name']}"))
    if page is not None:
        console.print(Text(f"Page: {page.resolve()}"), soft_wrap=True)


def _left(total: Total) -> str:
    if total.complete == total.cells:
        return f"All {total.cells} cells are complete."
    unsized = f" Not counted: {', '.join(total.unsized)}, of unknown size." if total.unsized else ""
    workers = f"{total.workers} worker{'s' if total.workers > 1 else ''}"
    return (
        f"{total.cells - total.complete} of {total.cells} cells to do: about {duration(total.seconds)} with "
        f"{workers}, {total.tokens:,} tokens, {size(total.disk)} of disk, "
        f"{size(total.memory)} of memory a training worker (estimates).{unsized}"
    )
