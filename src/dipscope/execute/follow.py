"""What a process does that torchrun started beside the one which runs the study: its share of training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from dipscope.errors import DipscopeError
from dipscope.plan import Cell
from dipscope.train import launch
from dipscope.workspace import Workspace


def follow(find: Callable[[], Path], members: launch.Team) -> None:
    """Start a rank for every train cell that the first process announces, until that one ends.

    What fails here or there is the first process's to tell: it decides whether other cells are still to be
    done, and ends all.

    Args:
        find: gives the workspace, as this machine sees it, or raises why there is none.
        members: which rank this process is for.

    Raises:
        DipscopeError: the first process is gone.
    """
    from dipscope import stages

    launch.leave_environment()
    for round_, settings in launch.rounds(members):
        try:
            workspace = Workspace(find())
            cell = Cell(**settings)
            inputs = [workspace.outputs(need) for need in cell.needs]
            given = [some for some in inputs if some is not None]
            if len(given) < len(inputs):
                raise _unshared(workspace.root)
        except DipscopeError as error:
            launch.give_up(members, round_, error)
            continue
        with contextlib.suppress(DipscopeError):
            stages.train_together(cell, given, workspace, lambda *progress: None, members, round_)


def _unshared(root: Path) -> DipscopeError:
    return DipscopeError(
        "another node does not see what the first one wrote here",
        str(root),
        "Give all nodes the same study and a --workspace on a disk that they share.",
    )
