"""Finding damage before it spreads: it is set aside, and only the cells that held it are redone."""

from __future__ import annotations

from pathlib import Path

from dipscope import records
from dipscope.errors import DipscopeError
from dipscope.plan import Plan
from dipscope.workspace import Workspace, hash_file


def heal(plan: Plan, workspace: Workspace) -> list[str]:
    """Check the outputs of every complete cell; say what was found damaged.

    Shards and traces are hashed. Of checkpoints the files' presence and sizes are checked here; their bytes
    are hashed when they are next loaded, since reading all weights at every start would cost minutes.
    """
    notes = []
    for cell in plan.cells:
        outputs = workspace.outputs(cell.id)
        if outputs is None:
            continue
        if cell.kind == "measure":
            folder = workspace.root / "records" / outputs["checkpoint"]
            bad = [folder / s for s in outputs["shards"] if not _whole(folder / s)]
        elif cell.kind == "prepare":
            path = workspace.absolute(outputs["traces"])
            bad = [] if path.is_file() and hash_file(path) == outputs["sha256"] else [path]
        elif cell.kind == "train":
            bad = [f for c in outputs["checkpoints"] if not _present(f := workspace.absolute(c["folder"]))]
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


def _present(folder: Path) -> bool:
    from dipscope.train.checkpoints import sizes_match

    try:
        return sizes_match(folder)
    except (OSError, DipscopeError):
        return False
