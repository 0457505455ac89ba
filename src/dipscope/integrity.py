"""Finding damage before it spreads: it is set aside, and only the cells that held it are redone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dipscope import records
from dipscope.errors import DipscopeError
from dipscope.plan import Cell, Plan
from dipscope.weights import weights_hash
from dipscope.workspace import Workspace, hash_file, write_atomic


def heal(plan: Plan, workspace: Workspace) -> list[str]:
    """Check the outputs of every complete cell; say what was found damaged.

    Shards, traces and tokens are hashed. Of base models and checkpoints the weights are hashed where
    something is still to be made from them; of the others only presence is checked, since reading all weights
    at every start would cost minutes. Cells whose records ended in errors are taken up once more as well. A
    checkpoint whose weights were dropped counts as whole until something is to be measured on it.

    Raises:
        DipscopeError: a base model that is needed and lies outside the workspace has changed.
    """
    # Records first: what is to be measured again needs its weights.
    notes = [n for c in plan.cells if c.kind == "measure" for n in _heal(c, workspace, set())]
    needed = _needed(plan, workspace)
    return notes + [n for c in plan.cells if c.kind != "measure" for n in _heal(c, workspace, needed)]


def _heal(cell: Cell, workspace: Workspace, needed: set[tuple[str, int]]) -> list[str]:
    outputs, notes = workspace.outputs(cell.id), []
    # Of a cell that is not complete too: training it takes what was dropped for done.
    if cell.kind == "train" and (steps := _wanted_again(cell, workspace, needed)):
        notes.append(f"the weights of {cell.name} @ {steps} were dropped and are needed again")
    if outputs is None:
        if workspace.marker(cell.id).exists():
            notes.append(f"the completion marker of {cell.name} is damaged")
        return notes
    bad = _damage(cell, outputs, workspace, needed)
    for path in bad:
        if path.is_file():
            path.rename(path.with_suffix(".damaged"))
        notes.append(f"{workspace.relative(path)} of {cell.name} is missing or damaged")
    errors = outputs.get("errors", 0)
    if errors and not bad:
        notes.append(f"{errors} record{'s' * (errors > 1)} of {cell.name} ended in an error")
    if cell.kind == "measure" and not notes and _outdated(cell, outputs, workspace):
        notes.append(f"{cell.name} was measured on other weights than the checkpoint has now")
    if notes:
        workspace.forget(cell.id)
    return notes


def _needed(plan: Plan, workspace: Workspace) -> set[tuple[str, int]]:
    """Weights from which something is still to be made: the cell that left them, and the step."""
    needed = set()
    for cell in plan.cells:
        if cell.kind in ("replay", "train", "measure") and workspace.outputs(cell.id) is None:
            needed.add((cell.needs[0], cell.settings["step"] if cell.kind == "measure" else 0))
    return needed


def _wanted_again(cell: Cell, workspace: Workspace, needed: set[tuple[str, int]]) -> str:
    """Steps of a train cell whose weights were dropped and are needed; asks for them to be trained again."""
    from dipscope.train import checkpoints

    wanted = [step for step in cell.settings["steps"] if (cell.id, step) in needed]
    return ", ".join(str(s) for s in wanted if checkpoints.want(_checkpoint(cell.id, s, workspace)))


def _checkpoint(train: str, step: int, workspace: Workspace) -> Path:
    """The folder that a train cell writes a checkpoint into."""
    return workspace.root / "runs" / train.partition("-")[2] / f"step-{step:06d}"


def _outdated(cell: Cell, outputs: Mapping[str, Any], workspace: Workspace) -> bool:
    """Whether the checkpoint that records are of has been trained again to other weights."""
    from dipscope.train import checkpoints

    if not cell.settings["step"]:
        return False
    try:
        marker = checkpoints.read_marker(_checkpoint(cell.needs[0], cell.settings["step"], workspace))
    except DipscopeError:
        return False  # its train cell is found damaged
    return marker is not None and marker["weights"] != outputs["checkpoint"]


def _damage(
    cell: Cell, outputs: Mapping[str, Any], workspace: Workspace, needed: set[tuple[str, int]]
) -> list[Path]:
    """What of a cell's outputs is not as it was left."""
    if cell.kind == "measure":
        folder = workspace.root / "records" / outputs["checkpoint"]
        return [folder / s for s in outputs["shards"] if not _whole(folder / s)]
    if cell.kind in ("replay", "prepare", "tokenize"):
        path = workspace.absolute(outputs["tokens" if cell.kind == "tokenize" else "traces"])
        return [] if path.is_file() and hash_file(path) == outputs["sha256"] else [path]
    if cell.kind == "train":
        folders = {c["step"]: workspace.absolute(c["folder"]) for c in outputs["checkpoints"]}
        return [f for step, f in folders.items() if not _sound(f, (cell.id, step) in needed)]
    folder = workspace.absolute(outputs["folder"])
    if not (folder / "config.json").is_file():
        _discard(cell.id, workspace)
        return [folder]
    if (cell.id, 0) in needed and not _same(folder, outputs["checkpoint"]):
        _give_up_outside(folder, workspace)
        _discard(cell.id, workspace)
        return [folder]
    return []


def _whole(path: Path) -> bool:
    return path.is_file() and records.intact(path)


def _sound(folder: Path, thoroughly: bool) -> bool:
    from dipscope.train import checkpoints

    try:
        marker = checkpoints.read_marker(folder)
        if marker is not None and "dropped" in marker:
            return True
        if thoroughly:
            checkpoints.verify(folder)
    except (OSError, DipscopeError):
        return False
    return marker is not None and all((folder / name).is_file() for name in marker["files"])


def first_hash(cell: Cell, folder: Path, workspace: Workspace) -> str:
    """Hash of the weights of a base model that was just found or made.

    The first hash of a base stands for as long as the workspace, so that what was made from one base never
    meets what was made from another under the same key.

    Raises:
        DipscopeError: the workspace was begun with other weights.
    """
    found = weights_hash(folder)
    kept = workspace.root / "models" / f"{cell.key}.weights"
    if kept.is_file() and kept.read_text() != found:
        raise _others(folder)
    write_atomic(kept, found)
    return found


def check_base(cell: str, outputs: Mapping[str, Any], workspace: Workspace) -> Path:
    """The folder of a base model whose weights are those that its cell found.

    Raises:
        DipscopeError: they are not. What dipscope made is then removed and made anew by the next run.
    """
    folder = workspace.absolute(outputs["folder"])
    if _same(folder, outputs["checkpoint"]):
        return folder
    _give_up_outside(folder, workspace)
    _discard(cell, workspace)
    raise DipscopeError(
        "the base weights have changed or are damaged",
        str(folder),
        "Run again: they are made anew.",
        fault=True,
    )


def _same(folder: Path, expected: str) -> bool:
    try:
        return weights_hash(folder) == expected
    except (OSError, DipscopeError):
        return False


def _give_up_outside(folder: Path, workspace: Workspace) -> None:
    """Raise where the weights, or what links point at, do not belong to the workspace."""
    files = list(folder.glob("*.safetensors")) or [folder]
    if not all(f.resolve().is_relative_to(workspace.root.resolve()) for f in files):
        raise _others(folder)


def _others(folder: Path) -> DipscopeError:
    return DipscopeError(
        "the base weights are not those that this workspace was begun with",
        str(folder),
        "Put those back, or begin another --workspace.",
        fault=True,
    )


def _discard(cell: str, workspace: Workspace) -> None:
    """Remove what dipscope made of a base model, and then its completion marker."""
    key = cell.partition("-")[2]
    for folder in (workspace.root / "models").glob(f"{key}*"):
        if folder.is_dir():
            shutil.rmtree(folder)
    workspace.forget(cell)
