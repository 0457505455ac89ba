"""Verification in a pool of worker processes that may hang, crash or eat memory without harm."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any, Literal

from dipscope.scoring import verify
from dipscope.scoring.base import MISSING, Judgement
from dipscope.scoring.process import Process
from dipscope.scoring.verify import Finding

WORKER = "dipscope.scoring.verify_worker"
CHUNK, CHUNK_CHARACTERS = 64, 1 << 18  # what one line to a worker holds at most
AHEAD = 4  # chunks per worker that are read before the first verdict is waited for
RECYCLE = 20_000  # pairs after which a worker is replaced: the caches of sympy and of the parser grow
MEMO, MEMO_CHARACTERS = 100_000, 2_000  # pairs remembered, and the longest of them
WALL = 30.0  # wall seconds for a verdict per CPU second it may take; ends a worker that sleeps

Pair = tuple[str, str]
Rule = Literal["verify", "whole"]


@dataclass
class _Chunk:
    """Pairs that go to a worker together; `found` is set when they are handed over."""

    pairs: list[Pair] = field(default_factory=list)
    characters: int = 0
    found: Future[list[Finding]] | None = None


@dataclass(frozen=True)
class _Place:
    """Where the verdict of a pair will be found."""

    pair: Pair
    chunk: _Chunk
    index: int


class Verifiers:
    """A pool of verifying processes, to be used as a context.

    Verdicts depend neither on the machine's load nor on the number of workers nor on what else is verified.
    Several threads may share a pool. Workers start when there is work for them and end with their parent.

    Args:
        workers: processes at most; as many as there are cores by default.
        cpu_seconds: CPU time that one verdict may take before it is `error`.
        rule: how a pair is judged: `verify` compares a gold with an answer, `whole` (see `scoring.whole`) a
            gold with a response.

    Attributes:
        reasons: why distinct pairs got the verdict `error`, counted.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        cpu_seconds: float = 5.0,
        rule: Rule = "verify",
    ) -> None:
        self.workers = workers or os.cpu_count() or 1
        self.cpu_seconds, self.rule = cpu_seconds, rule
        self.reasons: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="verifier")
        self._idle: queue.LifoQueue[tuple[Process, int]] = queue.LifoQueue()
        self._alive: set[Process] = set()
        self._memo: OrderedDict[Pair, Finding] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Verifiers:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def judge(self, pairs: Iterable[tuple[str, str | None]]) -> Iterator[Judgement]:
        """Verdicts of (gold, answer) pairs, in their order.

        Pairs are read a bounded number ahead. An answer of None is `missing`. Equal pairs are verified once;
        the pool remembers the latest.

        Raises:
            DipscopeError: no worker can be started (fault).
        """
        ahead = self.workers * AHEAD * CHUNK
        asked: dict[Pair, _Place] = {}
        waiting: deque[Judgement | _Place] = deque()
        chunk = _Chunk()
        source = iter(pairs)
        while True:
            for gold, said in islice(source, ahead - len(waiting)):
                if said is None:
                    waiting.append(MISSING)
                    continue
                pair = (gold, said)
                if (known := self._known(pair)) is not None:
                    waiting.append(verify.judgement(known, said))
                    continue
                if pair not in asked:
                    asked[pair] = _Place(pair, chunk, len(chunk.pairs))
                    chunk.pairs.append(pair)
                    chunk.characters += len(gold) + len(said)
                waiting.append(asked[pair])
                if len(chunk.pairs) >= CHUNK or chunk.characters >= CHUNK_CHARACTERS:
                    self._submit(chunk)
                    chunk = _Chunk()
            if not waiting:
                return
            head = waiting.popleft()
            if isinstance(head, Judgement):
                yield head
                continue
            if head.chunk.found is None:
                self._submit(chunk)
                chunk = _Chunk()
            assert head.chunk.found is not None
            found = head.chunk.found.result()[head.index]
            if asked.pop(head.pair, None) is not None:
                self._remember(head.pair, found)
            yield verify.judgement(found, head.pair[1])

    def close(self) -> None:
        """End the workers. Verdicts still waited for raise."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for process in self._alive:
                process.interrupt()
        self._threads.shutdown(wait=True)
        while not self._idle.empty():
            self._discard(self._idle.get()[0])

    def _known(self, pair: Pair) -> Finding | None:
        with self._lock:
            known = self._memo.get(pair)
            if known is not None:
                self._memo.move_to_end(pair)
            return known

    def _remember(self, pair: Pair, found: Finding) -> None:
        with self._lock:
            if found[0] == "error":
                self.reasons[found[1]] += 1
            if len(pair[0]) + len(pair[1]) <= MEMO_CHARACTERS:
                self._memo[pair] = found
                if len(self._memo) > MEMO:
                    self._memo.popitem(last=False)

    def _submit(self, chunk: _Chunk) -> None:
        chunk.found = self._threads.submit(self._verify, chunk.pairs)

    def _verify(self, pairs: list[Pair]) -> list[Finding]:
        """Findings of `pairs`; where a worker dies, the pair it was at is tried once more."""
        found: list[Finding] = []
        suspect = -1
        while len(found) < len(pairs):
            process, served = self._borrow()
            left = pairs[len(found) :]
            before = len(found)
            for reply in process.ask(json.dumps(left).encode(), len(left), WALL * self.cpu_seconds):
                verdict, reason = json.loads(reply)
                found.append((verdict, reason))
            served += len(found) - before
            if len(found) == len(pairs) and served < RECYCLE:
                self._idle.put((process, served))
                continue
            self._discard(process)
            if len(found) == len(pairs):
                continue
            # The kernel's end for CPU time is the pair's own doing. Any other end may come from outside.
            if process.spent or suspect == len(found):
                found.append(("error", "out of time" if process.spent else "the worker died"))
            else:
                suspect = len(found)
        return found

    def _borrow(self) -> tuple[Process, int]:
        if self._closed:
            raise RuntimeError("the pool of verifiers is closed")
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            process = Process(WORKER, str(self.cpu_seconds), self.rule)
            with self._lock:
                self._alive.add(process)
            if self._closed:  # meanwhile: what started too late to be interrupted ends here
                self._discard(process)
                raise RuntimeError("the pool of verifiers is closed") from None
            return process, 0

    def _discard(self, process: Process) -> None:
        process.kill()
        with self._lock:
            self._alive.discard(process)


def shared(rule: Rule = "verify") -> Verifiers:
    """The pool of this process for a rule, made when it is first asked for; it ends with the process."""
    return _shared(rule, os.getpid())


@cache
def _shared(rule: Rule, owner: int) -> Verifiers:
    # A process that was forked has neither the threads nor the pipes of its parent: it makes its own.
    return Verifiers(rule=rule)
