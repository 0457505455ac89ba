"""Which checkpoints still need their weights; the others' may be deleted while a study runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dipscope.errors import DipscopeError
from dipscope.plan import Cell, Plan
from dipscope.workspace import Workspace

Keep = Literal["all", "last", "none"]


@dataclass(frozen=True)
class Disk:
    """Bytes of checkpoints and resume points: at most while a study runs, and when it is done."""

    peak: int
    final: int


def sweep(plan: Plan, workspace: Workspace, keep: Keep, measured: str | None = None) -> list[Path]:
    """Delete the weights of checkpoints that every measure cell of the plan is done with.

    The marker of each stays, so that the workspace knows what stood there; what is deleted is never part of
    a key. A measure cell with records that ended in an error is not done: another run tries these again.

    Args:
        plan: of the study that the workspace belongs to.
        workspace: where.
        keep: `all`, the `last` checkpoint of every run, or `none`.
        measured: look only at the checkpoint of this measure cell, which has just been completed.

    Returns:
        The folders whose weights were deleted. One that cannot be deleted now is left to the next call.
    """
    if keep == "all":
        return []
    from dipscope.train import checkpoints

    needed = _needed(plan, workspace)
    only = None if measured is None else _source(plan.cell(measured))
    dropped = []
    for cell in plan.cells:
        outputs = workspace.outputs(cell.id) if cell.kind == "train" else None
        for checkpoint in (outputs or {}).get("checkpoints", ()):
            step = checkpoint["step"]
            if (cell.id, step) in needed or (keep == "last" and step == cell.settings["steps"][-1]):
                continue
            folder = workspace.absolute(checkpoint["folder"])
            if only not in (None, (cell.id, step)) or not checkpoints.holds_files(folder):
                continue
            try:
                checkpoints.drop(folder)
            except (OSError, DipscopeError):
                continue
            workspace.log("dropped", folder=workspace.relative(folder))
            dropped.append(folder)
    return dropped


def _needed(plan: Plan, workspace: Workspace) -> set[tuple[str, int]]:
    """Train cell and step of every checkpoint on which something is still to be measured."""
    needed = set()
    for cell in plan.cells:
        if cell.kind == "measure":
            outputs = workspace.outputs(cell.id)
            if outputs is None or outputs.get("errors"):
                needed.add(_source(cell))
    return needed


def _source(measure: Cell) -> tuple[str, int]:
    return measure.needs[0], measure.settings["step"]


def disk(plan: Plan, keep: Keep, workers: int, sizes: Callable[[Cell], tuple[int, int]]) -> Disk:
    """What the checkpoints of a whole plan take, none of them done yet.

    The peak is a bound: with `last` and `none` a run is measured before the next begins, so that at most
    `workers` runs have all their checkpoints at once.

    Args:
        plan: of the study.
        keep: the rule.
        workers: processes that train and measure.
        sizes: bytes of one checkpoint and of the resume point of a train cell.
    """
    kept, passing, points = [], [], []
    for cell in plan.cells:
        if cell.kind == "train":
            one, point = sizes(cell)
            steps = len(cell.settings["steps"])
            stays = {"all": steps, "last": 1, "none": 0}[keep]
            kept.append(stays * one)
            passing.append((steps - stays) * one)
            points.append(point)
    at_once = sum(sorted(passing)[-workers:]) + sum(sorted(points)[-workers:])
    return Disk(sum(kept) + at_once, sum(kept))
