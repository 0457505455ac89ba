"""Run the cells of a plan on this machine, in worker processes that outlive the cells they run."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dipscope.errors import DipscopeError
from dipscope.plan import Cell, recipe_of
from dipscope.train.launch import Team, enough_rows, leave_environment
from dipscope.workspace import Workspace


@dataclass(frozen=True)
class Event:
    """Something a cell has to say: that it started, how far it is, what is worth knowing, that it ended."""

    cell: str
    state: Literal["started", "working", "note", "done", "failed"]
    done: int = 0
    total: int = 0
    note: str = ""


Observer = Callable[[Event], None]


def run(
    cells: Sequence[Cell],
    workspace: Workspace,
    workers: int,
    observe: Observer,
    members: Team | None = None,
    on_measured: Callable[[Cell], None] | None = None,
) -> None:
    """Do all cells that are not complete, each as soon as what it needs is.

    A cell that fails does not stop those that do not need it. With one worker the cells run in one worker
    process too, so that a result never depends on the number of workers.

    Args:
        cells: in an order in which they can be done.
        workspace: where.
        workers: processes that do cells side by side.
        observe: told what happens.
        members: the ranks that share a train cell; where there are several, one such cell is done at a time.
        on_measured: told of every measure cell that is complete. No training then begins while a checkpoint
            waits to be measured, so that weights can be dropped before others are made.

    Raises:
        DipscopeError: a recipe cannot be shared by so many, or the first failure, after everything else that
            could be done was done.
    """
    members = members or Team()
    todo = {c.id: c for c in cells if workspace.outputs(c.id) is None}
    for cell in todo.values():
        if cell.kind == "train":
            enough_rows(recipe_of(cell.settings), members.size, cell.name)
    if not todo:
        return
    context = mp.get_context("spawn")
    events: Any = context.Queue()
    pump = threading.Thread(target=_pump, args=(events, observe), daemon=True)
    pump.start()
    failures: list[DipscopeError] = []
    pool = ProcessPoolExecutor(
        min(workers, len(todo)), context, _begin, (events, str(workspace.root), members)
    )
    try:
        _schedule(pool, todo, workspace, events, failures, members.size > 1, workers, on_measured)
    except BaseException:
        _kill(pool)
        raise
    finally:
        with _held():
            pool.shutdown(cancel_futures=True)
            events.put(None)
            pump.join()
    if failures:
        raise failures[0]


def _schedule(
    pool: ProcessPoolExecutor,
    todo: dict[str, Cell],
    workspace: Workspace,
    events: Any,
    failures: list[DipscopeError],
    one_training: bool,
    workers: int,
    on_measured: Callable[[Cell], None] | None,
) -> None:
    waiting = dict(todo)
    unfinished = set(todo)
    running: dict[Future[None], Cell] = {}
    while waiting or running:
        ready = [c for c in waiting.values() if not unfinished.intersection(c.needs)]
        if on_measured is not None:
            ready.sort(key=lambda c: c.kind != "measure")
        for cell in ready:
            if on_measured is not None and len(running) >= workers:
                break
            busy = one_training and any(other.kind == "train" for other in running.values())
            if cell.kind == "train" and busy:
                continue
            del waiting[cell.id]
            running[_submit(pool, cell)] = cell
        if not running:
            return  # what still waits needs a cell that failed
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            cell = running.pop(future)
            failure = _failure(future, cell)
            if failure is None:
                unfinished.discard(cell.id)
                for note in (workspace.outputs(cell.id) or {}).get("notes", ()):
                    events.put(Event(cell.id, "note", note=note))
                events.put(Event(cell.id, "done"))
                if on_measured is not None and cell.kind == "measure":
                    on_measured(cell)
            else:
                failures.append(failure)
                workspace.log("failure", cell=cell.id, error=str(failure))
                events.put(Event(cell.id, "failed", note=str(failure)))
            if isinstance(future.exception(), BrokenProcessPool):
                return


def _submit(pool: ProcessPoolExecutor, cell: Cell) -> Future[None]:
    """Hand a cell to the pool. A worker that is started for it never sees Ctrl-C: the parent ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited by what is started
    try:
        return pool.submit(_work, cell)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _failure(future: Future[None], cell: Cell) -> DipscopeError | None:
    error = future.exception()
    if error is None:
        return None
    if isinstance(error, DipscopeError):
        return error if error.where else DipscopeError(error.what, cell.name, error.fix, fault=error.fault)
    if isinstance(error, BrokenProcessPool):
        return DipscopeError(
            "a worker process was killed (most often for want of memory)",
            cell.name,
            "Lower --workers or pack_tokens; then run again, nothing measured is lost.",
            fault=True,
        )
    told = f"{type(error).__name__}: {error}".splitlines()[0]
    return DipscopeError(
        f"the cell failed unexpectedly ({told})",
        cell.name,
        "Details are in log.jsonl of the workspace.",
        fault=True,
    )


@contextmanager
def _held() -> Iterator[None]:
    """Hold Ctrl-C back until what is inside is done: half a shutdown leaves semaphores and threads behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C only ever reaches the main thread
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _kill(pool: ProcessPoolExecutor) -> None:
    """End the workers now: what they have flushed is kept, the rest is made again."""
    for process in list((pool._processes or {}).values()):
        process.terminate()


def _pump(events: Any, observe: Observer) -> None:
    while (event := events.get()) is not None:
        observe(event)


# What follows runs in the worker processes.
_events: Any = None
_workspace: Workspace
_members: Team


def _begin(events: Any, root: str, members: Team) -> None:
    global _events, _workspace, _members
    _events, _workspace, _members = events, Workspace(Path(root)), members
    leave_environment()
    _workspace.hold_worker_lock()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import torch

    # One thread a process: two such processes beat one with two threads on small models, and a result
    # that does not depend on the number of threads is worth more than either.
    if not torch.cuda.is_available():
        torch.set_num_threads(1)


def _end_with_parent() -> None:
    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(cell: Cell) -> None:
    import traceback

    from dipscope import stages

    told = 0.0

    def report(done: int, total: int, note: str) -> None:
        nonlocal told
        if time.monotonic() - told > 0.2:
            told = time.monotonic()
            _events.put(Event(cell.id, "working", done, total, note))

    _events.put(Event(cell.id, "started"))
    try:
        stages.do(cell, _workspace, report, _members)
    except DipscopeError:
        raise
    except Exception:
        _workspace.log("traceback", cell=cell.id, traceback=traceback.format_exc())
        raise
