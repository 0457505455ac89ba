"""Verdicts on texts: what is known is not asked again, and what cannot be had is missing.

Verdicts are appended as they arrive: a run that is killed loses at most the last few seconds. A
request that failed (no reply in time, a server that broke) leaves nothing behind and is asked again by
the next run. A reply without a grade is asked for once more; then it is kept as such, and is no score.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dipscope.data.teaching.cost import BYTES_PER_TOKEN, Budget, Estimate, Prices
from dipscope.engine.text import Ask, Draft, Message, TextSampling, Writer
from dipscope.errors import DipscopeError
from dipscope.judging import store
from dipscope.judging.cases import Wanted
from dipscope.judging.rubrics import Rubric
from dipscope.scoring.base import Judgement
from dipscope.workspace import hash_json

Report = Callable[[int, int, str], None]
FLUSH_SECONDS = 10.0
_AGAIN = 0.5  # temperature of a second try: greedy, a judge would say the same once more
_LONG_TOKEN = 16  # characters: fewer prompt tokens than one in so many mean that the judge saw a part only


@dataclass(frozen=True)
class Options:
    """How a judge is asked.

    Attributes:
        tries: of a text whose reply has no grade.
        seed: of the requests.
        prices: of tokens; None: no cost is known.
        max_cost: most that all verdicts of this judge in the folder may cost, those that are there included.
        again: ask again where earlier replies had no grade.
    """

    tries: int = 2
    seed: int = 0
    prices: Prices | None = None
    max_cost: float | None = None
    again: bool = False


@dataclass
class Outcome:
    """How a run went.

    Attributes:
        asked: texts that had no verdict.
        graded: replies with a grade.
        invalid: texts whose replies had none.
        failed: texts without a reply, by reason.
        stopped: the cost limit ended it.
    """

    asked: int = 0
    graded: int = 0
    invalid: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    stopped: bool = False


class Judging:
    """The verdicts of one judge under one rubric.

    Args:
        writer: who judges.
        rubric: what is asked.
        texts: what is judged.
        folder: of the judgements.
        options: how.
        probe: where verdicts go when they join the records: `generate` replaces the scorer's own.

    Raises:
        DipscopeError: a cost limit without prices.
    """

    def __init__(
        self,
        writer: Writer,
        rubric: Rubric,
        texts: Sequence[Wanted],
        folder: Path,
        options: Options | None = None,
        probe: str = "generate",
    ) -> None:
        self.writer, self.rubric, self.folder, self.probe = writer, rubric, folder, probe
        self.options = options or Options()
        if self.options.max_cost is not None and self.options.prices is None:
            fix = "Give --price-in and --price-out, for a million tokens."
            raise DipscopeError("a cost limit needs prices", "--max-cost", fix)
        self.judge = judge_name(writer)
        rows = store.replies(folder)
        own = rows.filter(rows["judge"] == self.judge)
        self.spent = self._price(sum(own["n_prompt_tokens"]), sum(own["n_tokens"]))
        replies = own.filter((own["rubric"] == rubric.id) & (own["n_tokens"] > 0))["n_tokens"]
        self._mean = sum(replies) / len(replies) if len(replies) else None
        known = store.settled(rows)
        if self.options.again:
            known = known.filter(known["verdict"] != "error")
        settled = set(known.select(store.ONE).iter_rows())
        told = {row["key"]: row for row in known.iter_rows(named=True)}
        self._messages: dict[str, tuple[Message, ...]] = {}
        self.todo: dict[str, list[Wanted]] = {}  # by key: the same question and answer are asked once
        self._elsewhere: list[dict[str, Any]] = []  # what was asked before, for another benchmark or view
        for text in texts:
            messages = rubric.messages(text.case)
            key = store.key(self.judge, rubric.id, messages)
            if tuple(self._row(key, text, None)[name] for name in store.ONE) in settled:
                continue
            if (row := told.get(key)) is not None:
                made = None if row["verdict"] == "error" else rubric.grade(row["reply"], text.case)
                old = {k: row[k] for k in ("reply", "reason", "tries")}
                self._elsewhere.append({**self._row(key, text, made), **old})
                continue
            self.todo.setdefault(key, []).append(text)
            self._messages[key] = messages

    def estimate(self) -> Estimate:
        """What is missing, and what it will take."""
        sizes = [sum(len(c.encode()) for _, c in m) // BYTES_PER_TOKEN + 8 for m in self._messages.values()]
        mean = self.rubric.expected_tokens if self._mean is None else self._mean
        basis = "as this rubric usually takes" if self._mean is None else "as its replies so far"
        tokens = round(mean * len(sizes))
        priced = self.options.prices is not None
        cost = self._price(sum(sizes), tokens) if priced else None
        return Estimate(
            len(sizes), sum(sizes), tokens, mean, basis, None, None, cost, self.spent if priced else None
        )

    def run(self, report: Report | None = None) -> Outcome:
        """Ask for what is missing.

        Raises:
            DipscopeError: the judge cannot be reached or refuses everything; nothing that arrived is lost.
        """
        done = Outcome(asked=len(self.todo))
        budget = Budget(self.options.prices or Prices(), self.options.max_cost, self.spent)
        pending = list(self.todo)
        used: Counter[tuple[str, str]] = Counter()  # tokens of a key's prompts and replies, over all tries
        unread: dict[str, tuple[Draft, str, int]] = {}  # replies without a grade that are not kept yet
        with Appending(self.folder) as kept:

            def keep(draft: Draft, made: Judgement | None, reason: str, attempt: int) -> None:
                done.graded += made is not None
                done.invalid += made is None
                tokens = used["in", draft.key], used["out", draft.key]
                kept.add(self._rows(draft, made, reason, attempt, tokens))

            kept.add(self._elsewhere)
            try:
                for attempt in range(1, self.options.tries + 1):
                    for draft in self.writer.write(self._asks(pending, attempt, budget, done)):
                        used["in", draft.key] += draft.n_prompt_tokens or 0
                        used["out", draft.key] += draft.n_tokens or 0
                        self._settle(budget, draft)
                        if draft.finish == "error":
                            done.failed[draft.reason] += draft.key not in unread
                            continue
                        made, reason = self._grade(draft)
                        unread.pop(draft.key, None)
                        if made is None and attempt < self.options.tries:
                            unread[draft.key] = draft, reason, attempt
                            continue
                        keep(draft, made, reason, attempt)
                        if report:
                            report(done.graded + done.invalid, done.asked, "judged")
                    pending = list(unread)
            finally:  # however it ends, what was paid for is on record: the limit holds over all runs
                for draft, reason, attempt in unread.values():
                    keep(draft, None, reason, attempt)
        return done

    def _asks(self, keys: Sequence[str], attempt: int, budget: Budget, done: Outcome) -> Iterator[Ask]:
        temperature = 0.0 if attempt == 1 else _AGAIN
        drawn = TextSampling(temperature, 1.0, 0, 0.0, self.rubric.max_tokens)
        for key in keys:
            seed = int(hash_json([self.options.seed, key, attempt], 8), 16) >> 1  # fits 31 bits everywhere
            ask = Ask(key, self._messages[key], drawn, seed)
            if not budget.admit(ask):
                done.stopped = True
                return
            yield ask

    def _settle(self, budget: Budget, draft: Draft) -> None:
        silent = draft.n_tokens is None or draft.n_prompt_tokens is None
        if budget.limit is not None and silent and draft.finish != "error":
            what = "the judge does not report what it used, so no cost can be held"
            raise DipscopeError(
                what, "--max-cost", "Leave --max-cost out, or judge fewer texts with --share."
            )
        budget.settle(draft)

    def _grade(self, draft: Draft) -> tuple[Judgement | None, str]:
        """The grade of a reply, or why there is none."""
        case = self.todo[draft.key][0].case
        sent = sum(len("".join(content.split())) for _, content in self._messages[draft.key])
        if draft.n_prompt_tokens is not None and draft.n_prompt_tokens * _LONG_TOKEN < sent:
            return None, "the judge was shown a part of the text only"
        if draft.finish == "length" and not self.rubric.plain:
            return None, "the reply was cut off"
        made = self.rubric.grade(draft.text, case)
        return made, "" if made else "the reply has no grade in the form that was asked for"

    def _rows(
        self, draft: Draft, made: Judgement | None, reason: str, tries: int, tokens: tuple[int, int]
    ) -> list[dict[str, Any]]:
        """One row for each text that a reply is about; what it cost stands in the first."""
        texts = self.todo[draft.key]
        grades = [made and self.rubric.grade(draft.text, text.case) for text in texts]
        rows = [self._row(draft.key, text, grade) for text, grade in zip(texts, grades, strict=True)]
        for row in rows:
            row |= {"reply": draft.text, "reason": reason, "tries": tries}
        rows[0] |= {"n_prompt_tokens": tokens[0], "n_tokens": tokens[1]}
        return rows

    def _row(self, key: str, text: Wanted, made: Judgement | None) -> dict[str, Any]:
        return {
            **text.row(),
            "key": key,
            "judge": self.judge,
            "rubric": self.rubric.id,
            "probe": self.probe,
            "verdict": made.verdict if made else "error",
            "score": made.score if made else None,
            "extracted": made.extracted if made else None,
            "n_prompt_tokens": 0,
            "n_tokens": 0,
        }

    def _price(self, prompt_tokens: float, tokens: float) -> float:
        return (self.options.prices or Prices()).of(prompt_tokens, tokens)


class Appending:
    """Rows on their way to disk: a shard every few seconds, and at the end however it comes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows, self.flushed = folder, list[dict[str, Any]](), time.monotonic()

    def __enter__(self) -> Appending:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Take rows in."""
        self.rows += rows
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        store.append(self.folder, self.rows)
        self.rows, self.flushed = [], time.monotonic()


def judge_name(writer: Writer) -> str:
    """Who judges, with the weights where they are known."""
    weights = str(writer.facts.get("weights", ""))
    return f"{writer.name}@{weights[:12]}" if weights else writer.name
