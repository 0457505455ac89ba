"""Work on the parts of a table in several processes, with the results in the order of the parts."""

from __future__ import annotations

import multiprocessing as mp
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from dipscope.errors import DipscopeError

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 64  # results of one process that wait for their turn


def ordered(work: Callable[[T], Iterable[R]], tasks: Sequence[T], workers: int) -> Iterator[R]:
    """The results of all tasks, as if `work` were called on one after the other.

    Each process takes every n-th task. What it has found waits until the results of the tasks before have
    been taken; a process that is far ahead rests, so memory is bounded. The processes end when the iterator
    does, and with their parent.

    Args:
        work: a function of a module, or a partial one, which can be sent to another process.
        tasks: what is worked on.
        workers: processes; with one, or with a single task, the work is done here.

    Raises:
        DipscopeError: a process was lost (fault). What `work` raises is raised here, in its turn.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for task in tasks:
            yield from work(task)
        return
    pipes: list[Connection] = []
    processes: list[Any] = []
    try:
        for n in range(workers):
            ours, process = _start(work, tasks[n::workers])
            pipes.append(ours)
            processes.append(process)
        waiting: dict[Connection, deque[tuple[str, Any]]] = {pipe: deque() for pipe in pipes}
        for number in range(len(tasks)):
            yield from _results(pipes[number % workers], waiting)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.terminate()
            process.join()


def _results(pipe: Connection, waiting: dict[Connection, deque[tuple[str, Any]]]) -> Iterator[Any]:
    """What one task gives; meanwhile what other processes have to say is taken in."""
    while True:
        while not waiting[pipe]:
            hungry = [p for p, said in waiting.items() if len(said) < AHEAD and not p.closed]
            for ready in wait(hungry):
                assert isinstance(ready, Connection)
                try:
                    waiting[ready].append(ready.recv())
                except EOFError:
                    ready.close()
            if pipe.closed and not waiting[pipe]:
                raise DipscopeError(
                    "a process that reads was killed (most often for want of memory)",
                    "reading",
                    "Run again with fewer --workers.",
                    fault=True,
                )
        kind, value = waiting[pipe].popleft()
        if kind == "end":
            return
        if kind == "error":
            raise value
        yield value


def _start(work: Callable[[T], Iterable[R]], tasks: Sequence[T]) -> tuple[Connection, Any]:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, work, tasks), daemon=True)
    # Ctrl-C is for the parent, which ends the processes; what is blocked is inherited.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # the process has its own: when it dies, the pipe ends
    return ours, process


def _serve(pipe: Connection, work: Callable[[T], Iterable[R]], tasks: Sequence[T]) -> None:
    try:
        for task in tasks:
            for result in work(task):
                pipe.send(("result", result))
            pipe.send(("end", None))
    except BrokenPipeError:
        return  # nobody waits for the results any more
    except Exception as error:
        pipe.send(("error", error))
