"""`train.jsonl`: what every optimizer step of a run did, one line each."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipscope.workspace import unwritable, write_atomic

if TYPE_CHECKING:
    from dipscope.train.step import StepReport


class StepLog:
    """The log of one run. Lines up to step `known` are of this run; later ones are taken back."""

    def __init__(self, path: Path, known: int) -> None:
        self.path = path
        kept = path.read_bytes().split(b"\n")[:-1][:known] if path.exists() else []
        write_atomic(path, b"".join(line + b"\n" for line in kept))
        self.lines = len(kept)
        self.clipped = sum(b'"clipped": true' in line for line in kept)

    def known(self, step: int) -> list[dict[str, Any]]:
        """The lines up to a step."""
        return [json.loads(line) for line in self.path.read_text().splitlines()[:step]]

    def add(self, report: StepReport) -> dict[str, Any]:
        """Write the line of a step, unless it stands there since it was done before; return the line.

        The report's metrics stand beside its other fields, rounded to 6 digits, and `clipped_share`: the
        share of the steps so far whose gradient was clipped.

        Raises:
            DipscopeError: the disk refuses.
        """
        if report.step <= self.lines:
            return self.known(report.step)[-1]
        self.lines += 1
        self.clipped += report.clipped
        line: dict[str, Any] = asdict(report)
        metrics = line.pop("metrics").items()
        line = {name: float(f"{value:.6g}") for name, value in metrics} | line
        line["clipped_share"] = float(f"{self.clipped / self.lines:.6g}")
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise unwritable(self.path, error) from error
        return line

    def sync(self) -> None:
        """Flush the file to the disk: what is written after it says that these lines are there.

        Raises:
            DipscopeError: the disk refuses.
        """
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error
