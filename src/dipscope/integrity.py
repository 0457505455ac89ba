"""Finding damage before it spreads: it is set aside, and only the cells that held it are redone."""

from __future__ import annotations

from pathlib import Path

from dipscope import records
from dipscope.errors import DipscopeError
from dipscope.plan import Plan
from dipscope.workspace import Workspace, hash_file


def heal(plan: Plan, workspace: Workspace) -> list[str]:
    """Check the outputs of every complete cell; say what was found damaged.

    Shards and traces are hashed. Of checkpoints the bytes are hashed where a measurement is still to be made
    from them; of the others only presence is checked, since reading all weights at every start would cost
    minutes.
    """
    notes = []
    needed = {
        (cell.needs[0], cell.settings["step"])
        for cell in plan.cells
        if cell.kind == "measure" and workspace.outputs(cell.id) is None
    }
    for cell in plan.cells:
        outputs = workspace.outputs(cell.id)
        if outputs is None:
            continue
        if cell.kind == "measure":
            folder = workspace.root / "records" / outputs["checkpoint"]
            bad = [folder / s for s in outputs["shards"] if not _whole(folder / s)]
        elif cell.kind in ("replay", "prepare"):
            path = workspace.absolute(outputs["traces"])
            bad = [] if path.is_file() and hash_file(path) == outputs["sha256"] else [path]
        elif cell.kind == "train":
            bad = [
                folder
                for c in outputs["checkpoints"]
                if not _sound(folder := workspace.absolute(c["folder"]), (cell.id, c["step"]) in needed)
            ]
        else:
            folder = workspace.absolute(outputs["folder"])
            bad = [] if (folder / "config.json").is_file() else [folder]
        for path in bad:
            if path.is_file():
                path.rename(path.with_suffix(".damaged"))
            notes.append(f"{path.relative_to(workspace.root)} of {cell.name} is missing or damaged")
        if bad:
            workspace.forget(cell.id)
    return notes


def _whole(path: Path) -> bool:
    return path.is_file() and records.intact(path)


def _sound(folder: Path, thoroughly: bool) -> bool:
    from dipscope.train import checkpoints

    try:
        if thoroughly:
            checkpoints.verify(folder)
        marker = checkpoints.read_marker(folder)
    except (OSError, DipscopeError):
        return False
    return marker is not None and all((folder / name).is_file() for name in marker["files"])
