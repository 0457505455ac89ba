"""A pool of responses in a few bytes each: what a first pass keeps of it, and which ones are chosen."""

from __future__ import annotations

import hashlib
import itertools
import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dipscope.data.traces import Trace
from dipscope.scoring.answers import final_answer
from dipscope.scoring.base import Verdict
from dipscope.scoring.thinking import MARKS, split

Keep = Literal["random", "shortest", "longest", "median"]
Lengths = Callable[[Sequence[str]], Sequence[int]]
Report = Callable[[int, int, str], None] | None

# What a response may lack, in the order in which it is looked for.
STATES = ("cut at the length limit", "thinking never closed", "no answer", "complete")
COMPLETE = len(STATES) - 1
VERDICTS: tuple[Verdict, ...] = ("correct", "wrong", "error", "missing")
UNJUDGED = len(VERDICTS)  # no gold answer
_CHUNK, _BATCH = 1024, 64  # responses of one pool of `look`, and whose lengths are counted together


@dataclass
class Pool:
    """Every response of a table, as numbers.

    A response is known by its ordinal in the table's stream. 13 bytes are kept of it; besides, of each query
    its id, and each different pair of gold and final answer once.

    Attributes:
        queries: number of each query id, in order of first appearance.
        query: (responses,) number of its query.
        state: (responses,) index in `STATES`.
        length: (responses,) characters, or what `lengths` counts; 0 for what is not complete.
        pair: (responses,) index in `pairs`, or -1 without gold or for what is not complete.
        pairs: different (gold, answer).
    """

    queries: dict[str, int] = field(default_factory=dict)
    query: array[int] = field(default_factory=lambda: array("I"))
    state: bytearray = field(default_factory=bytearray)
    length: array[int] = field(default_factory=lambda: array("I"))
    pair: array[int] = field(default_factory=lambda: array("i"))
    pairs: dict[tuple[str, str], int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.query)

    def add(self, more: Pool) -> None:
        """Append the responses of another pool."""
        query = np.array([self.queries.setdefault(q, len(self.queries)) for q in more.queries], np.uint32)
        pair = np.array([*(self.pairs.setdefault(p, len(self.pairs)) for p in more.pairs), -1], np.int32)
        self.query.frombytes(query[np.frombuffer(more.query, np.uint32)].tobytes())
        self.pair.frombytes(pair[np.frombuffer(more.pair, np.int32)].tobytes())  # -1 is the last
        self.state += more.state
        self.length.extend(more.length)


class Scanned(Protocol):
    """What is read: `sources.Table`."""

    def scan(self, look: Callable[[Iterator[Trace]], Iterator[Pool]], workers: int = 1) -> Iterator[Pool]:
        """What `look` makes of the responses, part by part."""
        ...


def read(
    table: Scanned, lengths: Lengths | None = None, report: Report = None, total: int = 0, workers: int = 1
) -> Pool:
    """Take in a pool in one pass that keeps no text but final answers.

    Args:
        table: of the responses.
        lengths: counts the lengths of several texts, such as a tokenizer; characters by default. It is called
            in this process, so that nothing is read in others.
        report: called now and then with responses done, `total` and a note.
        total: responses in all, where known.
        workers: processes that read.
    """
    pool = Pool()
    for some in table.scan(partial(look, lengths=lengths), 1 if lengths else workers):
        pool.add(some)
        if report:
            report(len(pool), max(total, len(pool)), "responses read")
    return pool


def look(traces: Iterator[Trace], lengths: Lengths | None = None) -> Iterator[Pool]:
    """Pools of 1,024 responses at most, in order.

    Args:
        traces: the responses.
        lengths: see `read`.
    """
    while True:
        pool = Pool()
        waiting: list[tuple[int, str]] = []
        for trace in itertools.islice(traces, _CHUNK):
            state, answer = _state(trace)
            pair = -1
            if answer is not None and trace.gold:
                pair = pool.pairs.setdefault((trace.gold, answer), len(pool.pairs))
            if state == COMPLETE and lengths:
                waiting.append((len(pool.query), trace.response))
            pool.query.append(pool.queries.setdefault(trace.query, len(pool.queries)))
            pool.state.append(state)
            pool.length.append(len(trace.response) if state == COMPLETE else 0)
            pool.pair.append(pair)
            if lengths and len(waiting) == _BATCH:
                _count(pool, lengths, waiting)
        if lengths and waiting:
            _count(pool, lengths, waiting)
        if not pool:
            return
        yield pool


def _state(trace: Trace) -> tuple[int, str | None]:
    """State of a response and, when it is complete, its final answer."""
    if trace.finish not in ("", "stop"):
        return 0, None
    text = trace.response
    # An answer depends on nothing before the last closing mark; long reasoning is not copied about.
    at = next((at for _, closing in MARKS if (at := text.rfind(closing)) >= 0), -1)
    if at < 0 and not split(text).closed:
        return 1, None
    answer = final_answer(text[at:] if at >= 0 else text)
    return (2, None) if answer is None else (COMPLETE, answer)


def _count(pool: Pool, lengths: Lengths, waiting: list[tuple[int, str]]) -> None:
    counted = lengths([text for _, text in waiting])
    for (ordinal, _), length in zip(waiting, counted, strict=True):
        pool.length[ordinal] = length
    waiting.clear()


@dataclass(frozen=True)
class Chosen:
    """The responses of one query that its variants are made from, as ordinals; -1 where there is none.

    Attributes:
        query: its id.
        verified: a correct response.
        unverified: a response chosen as if there were no verdicts.
        wrong: a response with the verdict `wrong`.
    """

    query: str
    verified: int
    unverified: int
    wrong: int


def choose(
    pool: Pool, verdicts: NDArray[np.uint8], fits: NDArray[np.bool_], keep: Keep, seed: int
) -> list[Chosen]:
    """Choose responses of every query that has a complete one, by the same rule for every verdict.

    `random` draws an order of all responses of a query; the first that qualifies is taken. So where the
    unverified choice happens to be right, it is the verified one. `median` is the lower one of an even
    number; equal lengths count in the order of the table.

    Args:
        pool: the responses.
        verdicts: (responses,) index in `VERDICTS`, or `UNJUDGED`.
        fits: (responses,) whether it is complete and has an admitted length.
        keep: the rule.
        seed: of the random orders.

    Returns:
        In the order drawn by the seed, in which rows are kept: those of a smaller sample begin a larger one.
    """
    names = list(pool.queries)
    length = np.frombuffer(pool.length, np.uint32)
    chosen = []
    for number, ordinals in _by_query(pool, fits):
        order = ordinals.tolist()
        if keep == "random":
            random.Random(f"{seed} choose {names[number]}").shuffle(order)
        else:
            order = ordinals[np.argsort(length[ordinals], kind="stable")].tolist()
            if keep == "longest":
                order.sort(key=lambda o: -int(length[o]))
        right, wrong = ([o for o in order if verdicts[o] == VERDICTS.index(v)] for v in ("correct", "wrong"))
        picks = (_pick(some, keep) for some in (right, order, wrong))
        chosen.append(Chosen(names[number], *picks))
    return sorted(chosen, key=lambda c: hashlib.sha256(f"{seed} {c.query}".encode()).digest())


def _by_query(pool: Pool, fits: NDArray[np.bool_]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each query that has a response that fits, with the ordinals of these, ascending."""
    ordinals = np.flatnonzero(fits)
    query = np.frombuffer(pool.query, np.uint32)[ordinals]
    order = np.argsort(query, kind="stable")
    starts = np.flatnonzero(np.diff(query[order], prepend=-1))
    for part in np.split(ordinals[order], starts[1:]) if len(starts) else []:
        yield int(pool.query[part[0]]), part


def _pick(order: Sequence[int], keep: Keep) -> int:
    """The chosen one of responses in the order of the rule; -1 of none."""
    if not order:
        return -1
    return order[(len(order) - 1) // 2] if keep == "median" else order[0]
