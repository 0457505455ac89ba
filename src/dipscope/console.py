"""What the verbs print besides an analysis and a plan: states, announcements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from dipscope.units import duration, size

if TYPE_CHECKING:
    from dipscope.costs.cells import Total
    from dipscope.study import Study


def announce(study: Study, total: Total, root: Path) -> None:
    """Say on standard error what is about to be done and what it is estimated to take."""
    console = Console(stderr=True)
    runs = len(study.expand())
    console.print(Text(f"{study.study.name}: {runs} runs in {root}. {left_to_do(total)}"))


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


def here(seconds: float) -> str:
    """Working time on this machine for a reader, in days where it is more than two."""
    return duration(seconds) if seconds < 2 * 86_400 else f"{seconds / 86_400:,.0f} days"


def left_to_do(total: Total) -> str:
    """One sentence on what of a plan is not complete, and what it will take here."""
    if total.complete == total.cells:
        return f"All {total.cells} cells are complete."
    unsized = f" Not counted: {', '.join(total.unsized)}, of unknown size." if total.unsized else ""
    workers = f"{total.workers} worker{'s' if total.workers > 1 else ''}"
    return (
        f"{total.cells - total.complete} of {total.cells} cells to do: about {here(total.seconds)} with "
        f"{workers}, {total.tokens:,} tokens, {size(total.disk)} of disk, "
        f"{size(total.memory)} of memory a training worker (estimates). Checkpoints take at most "
        f"{size(total.peak_disk)} at once, {size(total.final_disk)} in the end.{unsized}"
    )
