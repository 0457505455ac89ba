"""What is in a trace table: lengths, thinking, answers, languages, duplicates, repetition, verdicts."""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from dipscope.data.checking import language, repetition, spread
from dipscope.data.checking.spread import Spread
from dipscope.data.traces import Trace
from dipscope.scoring.answers import final_answer
from dipscope.scoring.base import Judgement
from dipscope.scoring.thinking import split

Report = Callable[[int, int, str], None] | None
PARTS = ("prompt", "reasoning", "answer")
_BATCH = 64  # rows that are tokenized together


@dataclass(frozen=True)
class Stats:
    """What `describe` found in a table.

    Attributes:
        rows: traces.
        queries: different questions.
        unit: what lengths are counted in: `tokens of NAME`, or `words` between white space.
        lengths: by `prompt`, `reasoning`, `answer`; the prompt without chat template, reasoning and answer
            as `scoring.thinking.split` gives them. Rows without reasoning count as 0.
        response: length of the three parts that are learned from, reasoning and answer together.
        reasoned: rows with something inside a thinking block.
        closed: rows whose thinking, if any, is closed.
        answered: rows with a final answer after the thinking: a box, or else an `Answer:` line.
        gold: rows with a gold answer.
        languages: responses by language in a bounded sample; empty when languages were not asked for.
        repeated_responses: rows whose response, byte for byte, stood in an earlier row.
        repeated_queries: rows whose question was asked in an earlier row.
        compression: see `repetition.Repetition`.
        overlap: see there.
        looping: rows that end in a loop, see there.
        origins: rows by who wrote them.
        verdicts: rows by stored verdict; the empty text stands for rows that were not checked.
        finishes: rows by why the writer stopped; the empty text stands for not known.
    """

    rows: int
    queries: int
    unit: str
    lengths: Mapping[str, Spread]
    response: Spread
    reasoned: int
    closed: int
    answered: int
    gold: int
    languages: Mapping[str, int]
    repeated_responses: int
    repeated_queries: int
    compression: Spread
    overlap: Spread
    looping: int
    origins: Mapping[str, int]
    verdicts: Mapping[str, int]
    finishes: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        spreads = {n: getattr(self, n).as_dict() for n in ("response", "compression", "overlap")}
        lengths = {part: s.as_dict() for part, s in self.lengths.items()}
        return {**asdict(self), **spreads, "lengths": lengths}


def describe(
    traces: Iterable[Trace], tokenizer: Any | None = None, report: Report = None, *, languages: bool = True
) -> Stats:
    """Statistics of a trace table in one pass.

    Memory is about 60 bytes a row and one batch of rows, however long the table is.

    Args:
        traces: the rows.
        tokenizer: counts tokens; without one, words between white space are counted.
        report: called with rows done, 0 and a note.
        languages: whether to identify languages, on a sample of 512 responses.

    Raises:
        DipscopeError: languages are wanted and py3langid is not installed.
    """
    identify = language.identifier() if languages else None
    sample = language.Sample()
    lengths = {part: array("Q") for part in (*PARTS, "response")}
    compression, overlap = array("f"), array("f")
    responses, queries = set[bytes](), set[bytes]()
    counts, origins, verdicts, finishes = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    stream = iter(traces)
    while batch := list(itertools.islice(stream, _BATCH)):
        splits = [split(t.response) for t in batch]
        parts = [(t.prompt, s.reasoning, s.answer) for t, s in zip(batch, splits, strict=True)]
        for row in _measured(tokenizer, parts):
            for part, length in zip(PARTS, row, strict=True):
                lengths[part].append(length)
            lengths["response"].append(row[1] + row[2])
        for trace, response in zip(batch, splits, strict=True):
            counts["closed"] += response.closed
            counts["reasoned"] += bool(response.reasoning.strip())
            counts["answered"] += final_answer(trace.response) is not None
            counts["gold"] += bool(trace.gold)
            counts["response"] += _again(responses, trace.response)
            counts["query"] += _again(queries, trace.query)
            repeated = repetition.measure(trace.response)
            compression.append(repeated.compression)
            overlap.append(repeated.overlap)
            counts["looping"] += repeated.looping
            origins[trace.origin] += 1
            verdicts[trace.verdict] += 1
            finishes[trace.finish] += 1
            if identify:
                sample.offer(trace.id, trace.response)
        if report:
            report(len(compression), 0, "rows described")
    return Stats(
        rows=len(compression),
        queries=len(queries),
        unit=f"tokens of {_name(tokenizer)}" if tokenizer is not None else "words",
        lengths={part: spread.of(lengths[part], binned=True) for part in PARTS},
        response=spread.of(lengths["response"], binned=True),
        reasoned=counts["reasoned"],
        closed=counts["closed"],
        answered=counts["answered"],
        gold=counts["gold"],
        languages=sample.count(identify) if identify else {},
        repeated_responses=counts["response"],
        repeated_queries=counts["query"],
        compression=spread.of(compression),
        overlap=spread.of(overlap),
        looping=counts["looping"],
        origins=_sorted(origins),
        verdicts=_sorted(verdicts),
        finishes=_sorted(finishes),
    )


@dataclass(frozen=True)
class Verification:
    """What verifying the final answers of a table found.

    Attributes:
        rows: traces.
        without_gold: rows that have no gold answer and were not judged.
        verdicts: judged rows by verdict.
        changed: rows whose stored verdict is another one.
    """

    rows: int
    without_gold: int
    verdicts: Mapping[str, int]
    changed: int

    @property
    def judged(self) -> int:
        """Rows with a gold answer for which the verifier did not fail."""
        return sum(n for verdict, n in self.verdicts.items() if verdict != "error")

    @property
    def rate(self) -> float | None:
        """Share of the judged rows that are correct; a missing answer is not correct. None for no rows."""
        return self.verdicts.get("correct", 0) / self.judged if self.judged else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the rate."""
        return {**asdict(self), "judged": self.judged, "rate": self.rate}


class Judge(Protocol):
    """The part of `scoring.verifiers.Verifiers` that is needed here."""

    def judge(self, pairs: Iterable[tuple[str, str | None]]) -> Iterator[Judgement]:
        """Verdicts of (gold, answer) pairs, in their order."""
        ...


def verification(traces: Iterable[Trace], verifiers: Judge, report: Report = None) -> Verification:
    """Verify the final answer of every row against its gold answer, in bounded memory.

    Args:
        traces: the rows.
        verifiers: an open pool of verifiers.
        report: called with rows judged, 0 and a note.
    """
    rows = changed = 0
    stored: deque[str] = deque()

    def pairs() -> Iterator[tuple[str, str | None]]:
        nonlocal rows
        for trace in traces:
            rows += 1
            if trace.gold:
                stored.append(trace.verdict)
                yield trace.gold, final_answer(trace.response)

    verdicts: Counter[str] = Counter()
    judged = 0
    for judged, judgement in enumerate(verifiers.judge(pairs()), 1):
        verdicts[judgement.verdict] += 1
        before = stored.popleft()
        changed += bool(before) and before != judgement.verdict
        if report:
            report(judged, 0, "answers verified")
    return Verification(rows, rows - judged, _sorted(verdicts), changed)


def _measured(tokenizer: Any | None, parts: list[tuple[str, str, str]]) -> Iterator[tuple[int, ...]]:
    texts = [text for row in parts for text in row]
    if tokenizer is None:
        sizes = [len(text.split()) for text in texts]
    else:
        sizes = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    each = iter(sizes)
    return zip(each, each, each, strict=True)


def _name(tokenizer: Any) -> str:
    name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
    return Path(name).name if Path(name).is_dir() else name  # not where a model stands on this machine


def _again(seen: set[bytes], text: str) -> bool:
    """Whether a text was seen before; 64 bits of a hash of each are kept."""
    key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    known = key in seen
    seen.add(key)
    return known


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
