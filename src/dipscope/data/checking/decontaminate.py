"""Benchmark passages in training data: exact, word n-grams and near duplicates; found, listed, dropped.

The rules, all on words in normal form (`words.words`: no case, no punctuation, no white space):

exact
    A passage of at least 8 words that all stand in order in a prompt or response, with the same signs of
    arithmetic between numbers: `17 + 25` is not `17 - 25`. A shorter passage counts only as a whole prompt,
    as a line of one or as the sentences at a line's start, and then with all signs. Responses are not
    searched for shorter passages.
near
    A passage whose set of word trigrams has a Jaccard similarity of at least 0.3 with that of a prompt or of
    a line of it, with and without boilerplate trigrams, and at least 4 trigrams in common. Candidates come
    from MinHash (128 permutations) with locality-sensitive hashing; the similarity is then computed exactly.
    Responses are much longer than passages, so only prompts are compared.
13-gram, 8-gram
    13 or 8 words in a row of a passage stand in a prompt or response. N-grams with fewer than 4 different
    words of at least two letters are left out: counting to thirteen is no benchmark.
boilerplate
    An n-gram is boilerplate, not contamination, where it stands in more than 1 % of the items of its
    benchmark (and more than 2), or in the traces of more than 1 % of the queries (and more than 10). All
    numbers and single letters are taken for the same in this count (all numbers, for trigrams), so that a
    template stays one when they change. Answer instructions are of this kind too. They are listed once.

One match is reported for each passage in each prompt or response: the strongest kind, in the order above.
"""

from __future__ import annotations

import json
import re
import unicodedata
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dipscope.data.checking.duplicates import JACCARD, Candidate, Near, Short, same_signs
from dipscope.data.checking.matches import KINDS, Boilerplate, Found, Kind, Match, Where
from dipscope.data.checking.passages import LONG, SIZES, Ids, Library, Passage, common, join, load, proper
from dipscope.data.checking.words import ngrams, words
from dipscope.data.traces import Trace

QUERY_SHARE, QUERY_FLOOR = 0.01, 10
_BATCH_WORDS = 1 << 17
_SHOWN = 24  # words of a match that are looked up to show it


def find(traces: Iterable[Trace], passages: Mapping[str, Sequence[str]]) -> list[Match]:
    """The passages that stand in the traces; see `search`, which says more."""
    return list(search(traces, passages).matches)


def drop(
    traces: Iterable[Trace], matches: Iterable[Match], kinds: Collection[Kind] = KINDS
) -> Iterator[Trace]:
    """The traces in which none of the passages was found.

    Args:
        traces: the rows that were searched.
        matches: what was found.
        kinds: what counts.
    """
    found = {m.trace for m in matches if m.kind in kinds}
    return (trace for trace in traces if trace.id not in found)


def surroundings(trace: Trace, match: Match, room: int = 60) -> str:
    """What stands in a trace where a match was found, with some characters before and after it.

    Args:
        trace: the trace of the match.
        match: what was found there.
        room: characters on either side.

    Returns:
        One line; the match's first words lie within it. A near match gives the beginning of the prompt.
    """
    text = trace.response if match.where == "response" else _asked(trace)
    text = text if text.isascii() else unicodedata.normalize("NFKC", text)
    between = r"[\W_]*" if match.kind == "exact" else r"[\W_]+"
    words = [re.escape(word) for word in match.words.split()[:_SHOWN]]
    at = None if match.kind == "near" else re.search(between.join(words), text, re.IGNORECASE)
    start, end = at.span() if at else (0, min(len(text), 2 * room))
    before, after = max(start - room, 0), min(end + room, len(text))
    cut = "…" if before else "", "…" if after < len(text) else ""
    return " ".join(f"{cut[0]}{text[before:after]}{cut[1]}".split())


def search(
    traces: Iterable[Trace],
    passages: Mapping[str, Sequence[str]],
    report: Callable[[int, int, str], None] | None = None,
) -> Found:
    """Look for passages in the prompts and responses of traces, in one pass.

    Memory is that of the passages, 4 bytes and the query of a row, and 8 bytes for every n-gram of a passage
    that a row has; no text is kept.

    Args:
        traces: the rows.
        passages: texts by benchmark, usually the prompts of its test items.
        report: called with rows done, 0 and a note.

    Raises:
        DipscopeError: datasketch is not installed.
    """
    seeker = _Seeker(load(passages))
    for trace in traces:
        seeker.take(trace)
        if report:
            report(seeker.rows, 0, "rows searched")
    return seeker.finish({name: len(texts) for name, texts in passages.items()})


class _Seeker:
    """Collects hits batch by batch. A slot is a text: 2 × row for the prompt, one more for the response."""

    def __init__(self, passages: list[Passage]) -> None:
        self.passages, self.library = passages, Library(passages)
        self.short, self.near = Short(passages), Near(passages)
        self.rows = self.words = 0
        self.names: dict[int, str] = {}  # ids of the rows in which something was found
        self.queries: dict[str, int] = {}
        self.query = array("I")  # of each row
        self.hits = {n: (array("I"), array("I")) for n in SIZES}  # grams and their slots
        self.best: dict[tuple[int, int], tuple[Kind, float]] = {}  # by slot and passage
        self.batch: list[tuple[int, Ids]] = []
        self.texts: dict[int, str] = {}  # of the batch, by slot
        self.pending: dict[int, str] = {}
        self.size = 0
        self.close: list[tuple[int, Candidate]] = []
        self.asked: tuple[str, list[int], list[Candidate]] = ("", [], [])

    def take(self, trace: Trace) -> None:
        row, self.rows = self.rows, self.rows + 1
        new = trace.query not in self.queries
        self.query.append(self.queries.setdefault(trace.query, len(self.queries)))
        self.pending[row] = trace.id
        prompt = _asked(trace)
        for slot, text in ((2 * row, prompt), (2 * row + 1, trace.response)):
            ids = self.library.encode(words(text))
            self.batch.append((slot, ids))
            self.texts[slot] = text
            self.words += len(ids)
            self.size += len(ids) + 1
        if new or prompt != self.asked[0]:
            self.asked = (prompt, self.short.find(prompt), self.near.look(prompt, new=new))
        for number in self.asked[1]:
            self._note(2 * row, number, "exact", 1.0)
        if self.asked[2]:
            self.names[row] = trace.id
            self.close += ((2 * row, candidate) for candidate in self.asked[2])
        if self.size >= _BATCH_WORDS:
            self._flush()

    def _note(self, slot: int, passage: int, kind: Kind, share: float) -> None:
        known = self.best.get((slot, passage))
        if known is None or (KINDS.index(known[0]), -known[1]) > (KINDS.index(kind), -share):
            self.best[slot, passage] = (kind, share)
            self.names.setdefault(slot // 2, self.pending.get(slot // 2, ""))

    def _flush(self) -> None:
        ids = join([part for _, part in self.batch])
        slots = np.repeat(
            np.array([slot for slot, _ in self.batch], np.int64), [len(part) + 1 for _, part in self.batch]
        )
        for n, table in self.library.tables.items():
            place, grams = table.find(ngrams(ids, n))
            if n == LONG:
                for start, number in self.library.whole(ids, place, grams):
                    slot = int(slots[start])
                    if same_signs(self.passages[number], self.texts[slot]):
                        self._note(slot, number, "exact", 1.0)
            telling = table.telling[grams]
            pairs = np.unique(np.stack([grams[telling], slots[place[telling]]]), axis=1)
            self.hits[n][0].frombytes(pairs[0].astype(np.uint32).tobytes())
            self.hits[n][1].frombytes(pairs[1].astype(np.uint32).tobytes())
            for row in np.unique(pairs[1] // 2).tolist():
                self.names.setdefault(row, self.pending[row])
        self.batch, self.texts, self.pending, self.size = [], {}, {}, 0

    def finish(self, sizes: Mapping[str, int]) -> Found:
        self._flush()
        limit = common(QUERY_SHARE, QUERY_FLOOR, len(self.queries))
        self._settle(self.near.usual(limit))
        boilerplate: list[Boilerplate] = []
        found: dict[tuple[int, int], dict[int, list[int]]] = {}  # slot and passage: n: words where grams are
        for n, (grams, slots) in self.hits.items():
            table, gram, slot = self.library.tables[n], _numpy(grams), _numpy(slots)
            queries = self._queries(table.form[gram], slot)
            usual = table.template[gram] | (queries > limit)
            if n == LONG:
                boilerplate = self._boilerplate(gram[usual], queries[usual])
            index, passage, offset = table.owners(gram[~usual])
            order = np.lexsort((offset, passage, slot[~usual][index]))
            triples = zip(slot[~usual][index[order]], passage[order], offset[order], strict=True)
            for s, p, o in triples:
                found.setdefault((int(s), int(p)), {}).setdefault(n, []).append(int(o))
        matches = [self._match(slot, passage, found.get((slot, passage), {})) for slot, passage in
                   sorted({*found, *self.best})]  # fmt: skip
        return Found(tuple(matches), tuple(boilerplate), self.rows, len(self.queries), self.words, sizes)

    def _settle(self, usual: frozenset[int]) -> None:
        """Keep the near duplicates that stay so without boilerplate."""
        for slot, candidate in self.close:
            similarity = self.near.similarity(candidate, usual)
            if similarity >= JACCARD:
                self._note(slot, candidate.passage, "near", similarity)

    def _queries(self, form: NDArray[np.int64], slot: NDArray[np.int64]) -> NDArray[np.int64]:
        """For every hit, the different queries in whose traces the form of its gram stands."""
        query = _numpy(self.query)[slot // 2]
        pairs = np.unique(np.stack([form, query]), axis=1)
        return np.bincount(pairs[0], minlength=int(form.max(initial=-1)) + 1)[form]

    def _match(self, slot: int, number: int, found: Mapping[int, list[int]]) -> Match:
        passage = self.passages[number]
        kind, share = self.best.get((slot, number), (None, 0.0))
        said: Sequence[str] = passage.words
        if kind is None:
            n = max(found)
            kind = "13-gram" if n == max(SIZES) else "8-gram"
            start, end = _longest(found[n])
            said = passage.words[start : end + n]
            share = len(found.get(LONG, ())) / (len(passage.words) - LONG + 1)
        where: Where = "response" if slot % 2 else "prompt"
        row = self.names[slot // 2]
        return Match(row, passage.benchmark, passage.number, kind, where, " ".join(said), round(share, 4))

    def _boilerplate(self, grams: NDArray[np.int64], queries: NDArray[np.int64]) -> list[Boilerplate]:
        """Neighbouring boilerplate n-grams joined to phrases, each phrase once."""
        table = self.library.tables[LONG]
        gram, first = np.unique(grams, return_index=True)
        index, passage, offset = table.owners(gram)
        phrases: dict[str, Boilerplate] = {}
        order = np.lexsort((offset, passage)).tolist()
        for run in _runs(order, lambda a, b: passage[a] == passage[b] and offset[a] + 1 == offset[b]):
            owner = self.passages[int(passage[run[0]])]
            start = int(offset[run[0]])
            phrase = owner.words[start : start + len(run) - 1 + LONG]
            said = " ".join("#" if word.isdigit() else word for word in phrase)
            form = " ".join(word if proper(word) else "#" for word in phrase)
            items = int(max(table.items[gram[index[i]]] for i in run))
            seen = int(max(queries[first[index[i]]] for i in run))
            phrases.setdefault(form, Boilerplate(said, owner.benchmark, items, seen))
        kept: dict[str, Boilerplate] = {}
        for form in sorted(phrases, key=lambda f: (-len(f), f)):
            if not any(form in longer for longer in kept):
                kept[form] = phrases[form]
        return sorted(kept.values(), key=lambda b: (-b.queries, -b.items, b.words))


def _asked(trace: Trace) -> str:
    """The prompt, after the turns that stood before it."""
    if not trace.context:
        return trace.prompt
    turns = [str(turn.get("content", "")) for turn in json.loads(trace.context)]
    return "\n".join([*turns, trace.prompt])


def _numpy(values: array[int]) -> NDArray[np.int64]:
    return np.frombuffer(values, np.uint32).astype(np.int64)


def _longest(offsets: Sequence[int]) -> tuple[int, int]:
    """First and last of the longest run of neighbouring numbers in an ascending list."""
    run = max(_runs(offsets, lambda a, b: a + 1 == b), key=len)
    return run[0], run[-1]


def _runs(values: Sequence[int], joined: Callable[[int, int], bool]) -> list[list[int]]:
    """The list cut wherever two neighbours are not joined."""
    runs = [[v] for v in values[:1]]
    for before, value in pairwise(values):
        if joined(before, value):
            runs[-1].append(value)
        else:
            runs.append([value])
    return runs
