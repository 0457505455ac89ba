"""Starting the ranks of a run, watching over them, and ending all where one fails.

On one node this process starts them all. On several, torchrun has started one dipscope a GPU: the first
runs the study, the others follow it (execute/follow.py), and each starts one rank. Either way a rank is a
process of its own, so that one which hangs or dies can be ended with the others and leaves no memory taken.
"""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipscope.errors import DipscopeError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from torch._C._distributed_c10d import TCPStore

    from dipscope.study import Recipe

Report = Callable[[int, int, str], None]
_GRACE = 3.0  # s after a first failure in which another rank may tell one that explains it better
_PARTING = 60.0  # s after the result in which ranks may end by themselves
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Team:
    """The ranks that train one run together, and which of them this process starts.

    Attributes:
        size: ranks in all.
        first: the first of those that are started here.
        here: how many are started here.
        local: number of the first one's GPU on this machine.
        meeting: host and port of torchrun's store; None where all ranks are started here.
        served: whether torchrun itself keeps that store; else the first rank's dipscope does.
    """

    size: int = 1
    first: int = 0
    here: int = 1
    local: int = 0
    meeting: tuple[str, int] | None = None
    served: bool = False

    @property
    def follows(self) -> bool:
        """Whether another process runs the study."""
        return self.first > 0


def team(world: int | None) -> Team:
    """The team of this process: torchrun's where it was started by it, else `world` ranks on this machine.

    Raises:
        DipscopeError: torchrun's number is another one.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or any(name not in os.environ for name in _ENVIRONMENT):
        return Team(world or 1, here=world or 1)
    if world not in (None, size):
        what = f"--world {world} is asked for, and torchrun has started {size} processes"
        raise DipscopeError(what, "run", "Leave --world out: torchrun's number counts.")
    rank, local, port = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "MASTER_PORT"))
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Team(size, rank, 1, local, (os.environ["MASTER_ADDR"], port), served)


def leave_environment() -> None:
    """Forget what torchrun said: where nothing is trained, libraries must not believe they are a rank."""
    for name in _ENVIRONMENT:
        os.environ.pop(name, None)


def enough_rows(recipe: Recipe, ranks: int, where: str) -> None:
    """Refuse a step with fewer rows than ranks. Nothing has to divide: rows are dealt by their tokens.

    Raises:
        DipscopeError: there are fewer.
    """
    if recipe.batch_size < ranks:
        raise DipscopeError(
            f"batch_size {recipe.batch_size} is smaller than the {ranks} processes that train together",
            where,
            "Give each at least one row: lower --world or raise batch_size.",
        )


def connect(members: Team, *, serve: bool = False, patience: float = 300.0) -> TCPStore:
    """The store where the processes of a team meet.

    Args:
        members: of the team.
        serve: keep it in this process.
        patience: seconds to wait for whoever keeps it.

    Raises:
        DipscopeError: it cannot be reached.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host, port = members.meeting or ("127.0.0.1", 0)
    try:
        store: TCPStore = TCPStore(
            host, port, is_master=serve, timeout=timedelta(seconds=patience), wait_for_workers=False
        )
        return store
    except (RuntimeError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise DipscopeError(
            f"the processes cannot meet at {host}:{port} ({told})", "torchrun", fault=True
        ) from None


def announce(members: Team, work: dict[str, Any]) -> int:
    """Tell the followers what is to be done next; the number of this round, from 1."""
    store = connect(members)
    round_: int = store.add("dipscope/rounds", 1)
    store.set(f"dipscope/{round_}/work", json.dumps(work))
    return round_


@contextmanager
def leading(members: Team) -> Iterator[None]:
    """Run the study of a team that torchrun started; when the block is left, however, the others end too."""
    if members.meeting is None:
        yield
        return
    store = connect(members, serve=not members.served)
    try:
        yield
    finally:
        with suppress(RuntimeError):  # where torchrun has gone, so have the others
            store.set("dipscope/end", "")
            until = time.monotonic() + 10  # the store must outlive the last look at it
            while store.add("dipscope/gone", 0) < members.size - 1 and time.monotonic() < until:
                time.sleep(0.05)


def rounds(members: Team) -> Iterator[tuple[int, dict[str, Any]]]:
    """What the leader announces, with its numbers, until it ends.

    Raises:
        DipscopeError: it is gone without a word.
    """
    store, round_ = connect(members), 1
    try:
        while True:
            key = f"dipscope/{round_}/work"
            while not store.check([key]):
                if store.check(["dipscope/end"]):
                    store.add("dipscope/gone", 1)
                    return
                time.sleep(0.2)
            yield round_, json.loads(store.get(key))
            round_ += 1
    except RuntimeError:
        raise _gone() from None


def give_up(members: Team, round_: int, error: DipscopeError) -> None:
    """Tell the leader why this process starts no rank in a round."""
    told = json.dumps([error.what, error.where, error.fix, error.fault])
    connect(members).set(f"dipscope/{round_}/failed", told)


def _gone() -> DipscopeError:
    what = "the process that runs the study is gone"
    return DipscopeError(what, "torchrun", "Run the same command again to go on.", fault=True)


def run(
    task: Callable[..., Any],
    arguments: Sequence[Any],
    members: Team,
    report: Report,
    log: Path,
    *,
    round_: int = 0,
) -> Any:
    """Have every rank of a team do `task(*arguments, report)` inside one process group.

    Args:
        task: importable by name.
        arguments: for all ranks, picklable.
        members: whose ranks; the others' are started by processes that call this as well.
        report: gets what rank 0 reports.
        log: file that gets what the ranks and their libraries print.
        round_: which call this is for a team that torchrun started, the same number in every process.

    Returns:
        What rank 0 returned, plain data and no tensors; None where it was started elsewhere.

    Raises:
        DipscopeError: a rank failed; all have ended.
    """
    import multiprocessing as mp

    own = members.meeting is None
    store = connect(members, serve=own)
    address = ("127.0.0.1", store.port) if own else members.meeting
    context = mp.get_context("spawn")
    ranks: dict[connection.Connection, tuple[int, SpawnProcess]] = {}
    for n in range(members.here):
        ours, theirs = context.Pipe(duplex=False)
        rank = members.first + n
        wanted = (rank, members.size, members.local + n, address, round_, str(log))
        process = context.Process(target=_rank, args=(theirs, wanted, task, arguments))
        process.start()
        theirs.close()
        ranks[ours] = (rank, process)
    watch = _Watch(ranks, members, None if own else store, round_)
    try:
        return watch.until_done(report)
    finally:
        for _, process in ranks.values():
            process.kill()
            process.join()


class _Watch:
    """Waits for the ranks started here, and for word of the others."""

    def __init__(
        self,
        ranks: dict[connection.Connection, tuple[int, SpawnProcess]],
        members: Team,
        store: TCPStore | None,
        round_: int,
    ) -> None:
        self.ranks, self.members, self.store = dict(ranks), members, store
        self.round, self.prefix = round_, f"dipscope/{round_}"
        self.result: Any = None
        self.finished = False
        self.failures: list[tuple[int, DipscopeError]] = []  # how little it explains, what

    def until_done(self, report: Report) -> Any:
        """The result of rank 0; see `run`."""
        until = float("inf")
        while self.ranks and time.monotonic() < until:
            for ready in connection.wait(list(self.ranks), 0.5):
                assert isinstance(ready, connection.Connection)
                self._hear(ready, report)
            until = min(until, self._elsewhere())
            if self.failures:
                until = min(until, time.monotonic() + _GRACE)
            elif self.finished:
                until = min(until, time.monotonic() + _PARTING)
        if not self.failures and not self.finished and not self.members.follows:
            what = f"process 1 of {self.members.size} ended without a result"
            self.failures.append((3, DipscopeError(what, "", "Details are in ranks.log.", fault=True)))
        if self.failures:
            error = min(self.failures, key=lambda failure: failure[0])[1]
            if self.members.follows:
                give_up(self.members, self.round, error)
            elif self.store is not None:
                self.store.set(f"{self.prefix}/ended", "failed")
            raise error
        if self.store is not None and not self.members.follows:
            self.store.set(f"{self.prefix}/ended", "done")
        return self.result

    def _hear(self, ready: connection.Connection, report: Report) -> None:
        rank, process = self.ranks[ready]
        try:
            kind, content = ready.recv()
        except (EOFError, OSError):
            del self.ranks[ready]
            process.join()
            if process.exitcode:
                self._died(rank, process.exitcode)
            return
        if kind == "report":
            report(*content)
        elif kind == "result":
            self.result, self.finished = content, True
        elif kind == "failed":
            self.failures.append((0, content))
        elif kind == "crashed":
            what = f"process {rank + 1} of {self.members.size} failed unexpectedly ({content})"
            self.failures.append((2, DipscopeError(what, "", "Details are in ranks.log.", fault=True)))

    def _died(self, rank: int, code: int) -> None:
        if any(found <= 2 for found, _ in self.failures) and code > 0:
            return  # it told why before
        what = f"process {rank + 1} of {self.members.size} was killed (most often for want of memory)"
        fix = "Lower pack_tokens or raise --world; then run again, nothing is lost."
        if code == -9:
            self.failures.append((1, DipscopeError(what, "", fix, fault=True)))
        else:  # a library's abort, most often because another rank is gone
            what = f"process {rank + 1} of {self.members.size} ended with code {code}"
            self.failures.append((3, DipscopeError(what, "", "Details are in ranks.log.", fault=True)))

    def _elsewhere(self) -> float:
        """Look for what the other processes of the team have to say; until when to wait for our own ranks."""
        if self.store is None:
            return float("inf")
        try:
            if not self.members.follows and self.store.check([f"{self.prefix}/failed"]):
                what, where, fix, fault = json.loads(self.store.get(f"{self.prefix}/failed"))
                self.failures.append((0, DipscopeError(what, where, fix, fault=fault)))
            elif self.members.follows and self.store.check([f"{self.prefix}/ended"]):
                if self.store.get(f"{self.prefix}/ended") != b"done":
                    return 0.0
                self.finished = True
        except RuntimeError:
            self.failures.append((0, _gone()))
        return float("inf")


# What follows runs in the processes of the ranks.


def _rank(tell: Any, wanted: tuple[Any, ...], task: Callable[..., Any], arguments: Sequence[Any]) -> None:
    rank, size, local, (host, port), round_, log = wanted
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _print_into(Path(log))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    from dipscope.train.world import TIMEOUT, joined

    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # as in execute/local.py
    try:
        meeting = PrefixStore(f"ranks/{round_}", TCPStore(host, port, is_master=False, timeout=TIMEOUT))
        with joined(rank, size, local, meeting):
            result = task(*arguments, lambda *progress: tell.send(("report", progress)))
        if rank == 0:
            tell.send(("result", result))
    except DipscopeError as error:
        tell.send(("failed", error))
        os._exit(1)
    except torch.OutOfMemoryError:
        traceback.print_exc()
        what = f"the GPU of process {rank + 1} of {size} has too little memory"
        fix = "Lower pack_tokens, set activation_checkpointing = true, or raise --world."
        tell.send(("failed", DipscopeError(what, "train", fix, fault=True)))
        os._exit(1)
    except BaseException as error:
        traceback.print_exc()
        tell.send(("crashed", f"{type(error).__name__}: {error}".splitlines()[0]))
        os._exit(1)


def _end_with_parent() -> None:
    import multiprocessing as mp

    parent = mp.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _print_into(log: Path) -> None:
    """Send what this process prints, and what libraries do beside Python, to the end of a file."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
