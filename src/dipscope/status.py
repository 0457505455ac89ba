"""What a workspace holds: which cells are done, running and missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dipscope.errors import DipscopeError
from dipscope.plan import Plan, make
from dipscope.study import Study
from dipscope.workspace import Workspace, write_atomic


def remember(study: Study, workspace: Workspace) -> None:
    """Store the resolved study in its workspace."""
    # Only what it says: a default gives way to the benchmark's own, a key that is written does not.
    said = study.model_dump_json(indent=1, by_alias=True, exclude_unset=True)
    write_atomic(workspace.root / "study.json", said)


def recall(root: Path) -> tuple[Plan, Workspace]:
    """The plan of the study that a workspace belongs to.

    Raises:
        DipscopeError: the folder is no workspace, or its study.json is damaged.
    """
    from pydantic import ValidationError

    stored = root / "study.json"
    if not stored.is_file():
        raise DipscopeError(
            "this folder is no workspace (it has no study.json)",
            str(root),
            "Workspaces are made by `dipscope run`.",
        )
    try:
        study = Study.model_validate_json(stored.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise DipscopeError(
            "the file is damaged, or of another version of dipscope",
            str(stored),
            "Run the study again with `dipscope run STUDY --workspace` and this folder: it is written anew.",
            fault=True,
        ) from None
    return make(study), Workspace(root)


def cells(plan: Plan, workspace: Workspace) -> list[dict[str, Any]]:
    """Every cell with its state: done, running, waiting (for a cell it needs) or missing."""
    running = _started(workspace) if workspace.taken() else set()
    done = {c.id for c in plan.cells if workspace.outputs(c.id) is not None}
    rows = []
    for cell in plan.cells:
        if cell.id in done:
            state = "done"
        elif cell.id in running:
            state = "running"
        else:
            state = "missing" if all(n in done for n in cell.needs) else "waiting"
        rows.append({"kind": cell.kind, "name": cell.name, "cell": cell.id, "state": state})
    return rows


def _started(workspace: Workspace) -> set[str]:
    """Cells that the newest run has started and not ended."""
    started: set[str] = set()
    try:
        lines = (workspace.root / "log.jsonl").read_text(errors="replace").splitlines()
    except OSError:
        return started
    for line in lines:
        try:
            entry = json.loads(line)
            event, cell = entry["event"], entry.get("cell", "")
        except (ValueError, TypeError, KeyError, AttributeError):
            continue  # a torn line
        if event == "run":
            started.clear()
        elif event == "start":
            started.add(cell)
        elif event in ("cell", "failure"):
            started.discard(cell)
    return started
