"""What a run shows while it works: the whole, and every cell at work, with time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from dipscope.execute.local import Event
from dipscope.units import duration


class RunProgress:
    """Draws events on standard error: bars on a terminal, a line per finished cell elsewhere.

    Time left is the estimated cost of what remains, scaled by how the estimates of the finished and the
    running cells have turned out so far.
    """

    def __init__(self, names: Mapping[str, str], costs: Mapping[str, float], workers: int) -> None:
        self.names, self.costs, self.workers = names, costs, workers
        self.console = Console(stderr=True, file=sys.stderr)
        self.begun = time.monotonic()
        self.share = dict.fromkeys(names, 0.0)
        self.finished = 0
        self.bars: dict[str, TaskID] = {}
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}", style="dim"), TimeElapsedColumn(),
            console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.whole = self.progress.add_task("study", total=1.0, note="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        """Take in one event of the executor."""
        name = self.names[event.cell]
        if event.state == "started":
            self.bars[event.cell] = self.progress.add_task(name, total=None, note="")
        elif event.state == "working" and event.cell in self.bars:
            self.share[event.cell] = event.done / event.total if event.total else 0.0
            self.progress.update(
                self.bars[event.cell], completed=event.done, total=event.total, note=event.note
            )
        elif event.state == "note":
            self.console.print(Text(f"{name}: {event.note}"), soft_wrap=True)
        elif event.state in ("done", "failed"):
            if event.cell in self.bars:
                self.progress.remove_task(self.bars.pop(event.cell))
            self.finished += 1
            self.share[event.cell] = 1.0
            if event.state == "failed":
                self.console.print(Text(f"failed: {event.note}", style="red"))
            elif not self.console.is_terminal:
                left = f"{self.finished}/{len(self.names)} cells, about {self._left()} left"
                self.console.print(Text(f"done: {name} ({left})"), soft_wrap=True)
        done = sum(self.costs[c] * s for c, s in self.share.items())
        whole = sum(self.costs.values()) or 1.0
        note = f"{self.finished}/{len(self.names)} cells, about {self._left()} left"
        self.progress.update(self.whole, completed=done / whole, note=note)

    def _left(self) -> str:
        done = sum(self.costs[c] * s for c, s in self.share.items())
        whole = sum(self.costs.values()) or 1.0
        spent = time.monotonic() - self.begun
        # Until a tenth is done the estimate stands alone; afterwards the pace so far says more.
        left = spent * (whole - done) / done if done > 0.1 * whole else (whole - done) / self.workers
        return duration(left)


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar with time left on standard error for one long piece of work; silent where that is no terminal.

    Yields:
        What the work calls with (done, total, note); a total of 0 means that it is not known.
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", style="dim"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None, note="")

        def report(done: int, total: int, note: str) -> None:
            progress.update(task, completed=done, total=total or None, note=note)

        yield report
