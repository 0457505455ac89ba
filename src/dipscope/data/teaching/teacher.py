"""Sampling a teacher: several responses a question, kept as they arrive and verified at once.

What is asked, and with which random numbers, is a function of the question, the number of the sample and the
seed, so a run that is stopped anywhere and started again asks exactly for what is missing. Responses are
sampled round by round, each question once before any question twice: a pool that is stopped early has the
same number of responses for every question.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self

from dipscope.data.teaching import questions
from dipscope.data.teaching.cost import BYTES_PER_TOKEN, Budget, Estimate, Prices
from dipscope.data.teaching.pool import Pool
from dipscope.data.teaching.questions import SUFFIX, Questions
from dipscope.data.traces import Trace
from dipscope.engine.text import Ask, Draft, TextSampling, Writer
from dipscope.errors import DipscopeError
from dipscope.scoring.base import Judgement
from dipscope.workspace import hash_json

Report = Callable[[int, int, str], None]  # done, total, note

_SEED_DIGITS = 13  # hex: 52 bits, which every JSON reader keeps exactly


class Judges(Protocol):
    """Who verifies: `scoring.verifiers.Verifiers`."""

    def judge(self, pairs: Iterable[tuple[str, str | None]]) -> Iterator[Judgement]:
        """Verdicts of (gold, answer) pairs, in their order."""
        ...


@dataclass(frozen=True)
class Options:
    """What is sampled. The defaults are the paper's.

    Attributes:
        samples: responses for each question.
        sampling: how one is drawn.
        suffix: what is asked for after the question, on a line of its own, unless the question asks for a
            box itself; empty for nothing.
        rows: questions, the first of the source; None is all.
        seed: of all random numbers.
        prices: of tokens, where the teacher charges for them.
        max_cost: most that the whole pool may cost.
        mean_tokens: expected length of a response; None measures it on a few.
        rate: response tokens a second to expect; None measures it likewise.
        probe: responses that are sampled (and kept) to measure it.
        flush_rows: responses after which a shard is written.
        flush_seconds: seconds after which the next response brings a shard with it.
    """

    samples: int = 32
    sampling: TextSampling = field(default_factory=TextSampling)
    suffix: str = SUFFIX
    rows: int | None = None
    seed: int = 0
    prices: Prices | None = None
    max_cost: float | None = None
    mean_tokens: float | None = None
    rate: float | None = None
    probe: int = 4
    flush_rows: int = 256
    flush_seconds: float = 20.0


class Sampler:
    """One pool being sampled; to be used as a context.

    Args:
        table: the questions; each is taken once, however many rows it has.
        out: the pool's folder.
        writer: the teacher.
        options: what is sampled.
        verifiers: who judges the answers; None leaves the verdicts empty.

    Raises:
        DipscopeError: the folder belongs to a pool that was sampled otherwise, a cost limit comes without
            prices, or there is no question.
    """

    def __init__(
        self, table: Questions, out: Path, writer: Writer, options: Options, verifiers: Judges | None
    ) -> None:
        if options.max_cost is not None and options.prices is None:
            fix = "Give --price-in and --price-out as well."
            raise DipscopeError("a limit on the cost needs prices", "--max-cost", fix)
        self.table, self.writer, self.options, self.verifiers = table, writer, options, verifiers
        identity = {
            "teacher": writer.name,
            "model": writer.facts,
            "sampling": asdict(options.sampling),
            "suffix": options.suffix,
            "seed": options.seed,
        }
        self.pool = Pool(out, identity)
        self._failed: dict[str, str] = {}  # why a response was not had, the latest attempt of it
        self.stopped = ""
        self._rows: list[tuple[Trace, int | None, int | None]] = []
        self._new = 0
        self._arrived = time.monotonic()  # of the latest draft

    def __enter__(self) -> Self:
        self.pool.__enter__()
        try:
            self.queries = questions.read(self.table, self.options.suffix, self.options.rows)
            self._by_id = {q.id: q for q in self.queries}
            self._have = sum(key in self.pool.ids for key in self._keys())
            self._budget = Budget(self.options.prices or Prices(), self.options.max_cost, self._spent())
            self._describe()
        except BaseException:
            self.pool.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self.pool.__exit__(None, None, None)

    @property
    def wanted(self) -> int:
        """Responses of the finished pool."""
        return len(self.queries) * self.options.samples

    def estimate(self, report: Report | None = None) -> Estimate:
        """What is missing and what it will take, measured on a few responses where nothing is known.

        Those few are among the wanted ones and are kept.
        """
        rate, mean, basis = self.options.rate, self.options.mean_tokens, "given"
        if mean is None and self._have < self.wanted:
            begun, before = time.monotonic(), self.pool.tally.tokens
            self._sample(self._spread(self.options.probe), report)
            seconds, made = self._arrived - begun, self.pool.tally.tokens - before
            rate = rate or (made / seconds if made else None)
            held = self.pool.tally
            counted = held.responses - held.uncounted
            mean = held.tokens / counted if counted else None
            basis = f"measured on {counted}"
        missing = self.wanted - self._have
        tokens = None if mean is None else round(mean * missing)
        prompts = round(self._prompt_tokens() * missing)
        prices = self.options.prices
        return Estimate(
            requests=missing,
            prompt_tokens=prompts,
            tokens=tokens,
            mean_tokens=mean,
            basis=basis,
            rate=rate,
            seconds=tokens / rate if tokens is not None and rate else None,
            cost=prices.of(prompts, tokens) if prices and tokens is not None else None,
            spent=self._spent() if prices else None,
        )

    def run(self, report: Report | None = None) -> dict[str, Any]:
        """Sample what is missing, up to the cost limit.

        Args:
            report: called with responses there, responses wanted and a note.

        Returns:
            What the pool holds now, and why anything is missing from it.
        """
        asks = (self._ask(key) for key in self._keys() if key not in self.pool.ids)
        try:
            self._sample(asks, report)
        finally:
            self._describe()
        return self.summary()

    def summary(self) -> dict[str, Any]:
        """The state of the pool, for a machine."""
        return {
            "pool": str(self.pool.folder),
            "teacher": self.writer.name,
            "queries": len(self.queries),
            "samples": self.options.samples,
            "wanted": self.wanted,
            "present": self._have,
            "new": self._new,
            "errors": dict(sorted(Counter(self._failed.values()).items())),
            "stopped": self.stopped,
            "verified": self._verified(),
            "spent": self._spent() if self.options.prices else None,
            "counts": self.pool.tally.as_dict(),
            "notes": self.pool.notes,
        }

    def _keys(self) -> Iterator[str]:
        for sample in range(self.options.samples):
            for query in self.queries:
                yield f"{query.id}-{sample}"

    def _spread(self, count: int) -> Iterator[Ask]:
        """The first missing samples of questions from all over the source."""
        missing = list(islice((k for k in self._keys() if k not in self.pool.ids), len(self.queries)))
        step = max(len(missing) / max(count, 1), 1.0)
        for i in range(min(count, len(missing))):
            yield self._ask(missing[int(i * step)])

    def _ask(self, key: str) -> Ask:
        name, _, sample = key.rpartition("-")
        seed = int(hash_json([self.options.seed, name, int(sample)], _SEED_DIGITS), 16)
        return Ask(key, self._by_id[name].messages, self.options.sampling, seed)

    def _sample(self, asks: Iterator[Ask], report: Report | None) -> None:
        """Have asks answered until there are none left or none is affordable."""
        held: list[Ask] = []

        def affordable() -> Iterator[Ask]:
            while (ask := held.pop() if held else next(asks, None)) is not None:
                if not self._budget.admit(ask):
                    held.append(ask)
                    return
                yield ask

        self.stopped, flushed = "", time.monotonic()
        try:
            while True:
                arrived = 0
                for draft in self.writer.write(affordable()):
                    arrived += 1
                    self._take(draft)
                    late = time.monotonic() - flushed > self.options.flush_seconds
                    if late or len(self._rows) >= self.options.flush_rows:
                        self._flush()
                        flushed = time.monotonic()
                    if report:
                        report(self._have, self.wanted, self._note())
                # What was in flight was counted at its longest. Now that it is here, more may be affordable.
                if not held or not arrived:
                    break
        finally:
            self._flush()
        if held:
            self.stopped = "max-cost"

    def _take(self, draft: Draft) -> None:
        self._arrived = time.monotonic()
        if draft.finish == "error":
            self._failed[draft.key] = draft.reason
        else:
            self._failed.pop(draft.key, None)
            query = self._by_id[draft.key.rpartition("-")[0]]
            trace = Trace(
                draft.key, query.id, query.prompt, draft.text, query.gold, self.writer.name, "",
                query.source, query.context, draft.finish,
            )  # fmt: skip
            self._rows.append((trace, draft.n_tokens, draft.n_prompt_tokens))
            self._have += 1
            self._new += 1
        self._budget.settle(draft)

    def _flush(self) -> None:
        """Judge what has arrived and put it on the disk."""
        rows, self._rows = self._rows, []
        verdicts = [""] * len(rows)
        try:
            verdicts = self._judge([trace for trace, _, _ in rows])
        finally:  # what was paid for is kept, verified or not
            self.pool.append(
                [(replace(t, verdict=v), n, m) for (t, n, m), v in zip(rows, verdicts, strict=True)]
            )

    def _judge(self, traces: list[Trace]) -> list[str]:
        from dipscope.scoring.answers import final_answer

        if self.verifiers is None:
            return [""] * len(traces)
        judged = self.verifiers.judge((t.gold, final_answer(t.response)) for t in traces if t.gold)
        return [next(judged).verdict if t.gold else "" for t in traces]

    def _note(self) -> str:
        share, said = self._verified(), []
        if share is not None:
            said.append(f"{share:.0%} verified")
        if self._failed:
            said.append(f"{len(self._failed):,} errors")
        return ", ".join(said)

    def _verified(self) -> float | None:
        """Share of the judged responses that are correct."""
        judged = {v: n for v, n in self.pool.tally.verdicts.items() if v}
        return judged.get("correct", 0) / sum(judged.values()) if judged else None

    def _prompt_tokens(self) -> float:
        held = self.pool.tally
        if counted := held.responses - held.uncounted:
            return held.prompt_tokens / counted
        return sum(len(q.prompt.encode()) for q in self.queries) / len(self.queries) / BYTES_PER_TOKEN

    def _spent(self) -> float:
        prices = self.options.prices or Prices()
        return prices.of(self.pool.tally.prompt_tokens, self.pool.tally.tokens)

    def _describe(self) -> None:
        self.pool.describe(
            source=dict(self.table.facts),
            queries=len(self.queries),
            samples=self.options.samples,
            missing=self.wanted - self._have,
        )


def sample(
    table: Questions,
    out: Path,
    writer: Writer,
    options: Options,
    verifiers: Judges | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Sample a teacher into the pool `out`, or go on where an earlier call was stopped.

    The finished pool has the same set of rows whether or not it was interrupted; with an engine that runs
    here, the same texts too. A response that could not be had is counted, kept out, and asked for again by
    the next call. The parameters are those of `Sampler`.

    Returns:
        What the pool holds now: see `Sampler.summary`.
    """
    with Sampler(table, out, writer, options, verifiers) as sampler:
        return sampler.run(report)
