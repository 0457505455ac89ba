"""Passages of benchmarks as sorted n-gram hashes, and the hits of texts in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipscope.data.checking.words import ngrams, words

LONG = 8  # words of a passage that is recognisable on its own
SIZES = (8, 13)  # words of the n-grams that are looked for
TELLING = 4  # different words of at least two letters in an n-gram that can identify a passage
ITEM_SHARE, ITEM_FLOOR = 0.01, 2  # an n-gram in more of a benchmark's items than both is its template
_UNKNOWN = -1  # a word of no passage; also stands between texts

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Passage:
    """One text of a benchmark, by its number there, with its words in normal form."""

    benchmark: str
    number: int
    text: str
    words: tuple[str, ...]


def load(passages: Mapping[str, Sequence[str]]) -> list[Passage]:
    """The passages of all benchmarks in one list."""
    return [
        Passage(benchmark, number, text, tuple(words(text)))
        for benchmark, texts in passages.items()
        for number, text in enumerate(texts)
    ]


def proper(word: str) -> bool:
    """Whether a word has at least two letters and nothing else: no number and no name of a variable."""
    return len(word) > 1 and word.isalpha()


def common(share: float, floor: int, whole: int) -> float:
    """The count above which something is common: a share of the whole, and never less than a floor."""
    return max(share * whole, floor)


class Table:
    """The n-grams of all passages for one n.

    Args:
        n: words in a gram.
        encoded: the passages as numbers of words.
        real: (words,) whether a word is `proper`.
        masked: (words,) the word that stands for it when only proper words count.
        labels: (passages,) number of the benchmark.

    Attributes:
        keys: (grams,) sorted distinct hashes; the position in it is a gram's number.
        telling: (grams,) whether it has enough different words to identify a passage.
        form: (grams,) number of what is left when all words that are not proper are taken for the same.
        template: (grams,) whether its form stands in too many items of a benchmark.
        items: (grams,) passages in which its form stands.
    """

    def __init__(
        self, n: int, encoded: Sequence[Ids], real: NDArray[np.bool_], masked: Ids, labels: Sequence[int]
    ) -> None:
        ids = join(encoded)
        passage = np.repeat(np.arange(len(encoded)), [len(e) + 1 for e in encoded])
        offset = np.concatenate([np.arange(len(e) + 1) for e in encoded]) if encoded else np.zeros(0, int)
        hashes = ngrams(ids, n)
        windows = np.lib.stride_tricks.sliding_window_view(ids, n) if len(hashes) else np.zeros((0, n), int)
        inside = np.flatnonzero(~(windows == _UNKNOWN).any(axis=1))
        self.keys, first, number = np.unique(hashes[inside], return_index=True, return_inverse=True)
        self.telling = _distinct(windows[inside[first]], real) >= TELLING
        order = np.argsort(number, kind="stable")
        self._passage, self._offset = passage[inside[order]], offset[inside[order]]
        self._starts = np.searchsorted(number[order], np.arange(len(self.keys) + 1))
        forms = ngrams(masked[ids], n)[inside]
        _, each = np.unique(forms, return_inverse=True)
        self.form = np.zeros(len(self.keys), np.int64)
        self.form[number] = each
        self._spread(each, passage[inside], np.asarray(labels))
        # A hash whose leading bits belong to no key is refused without a search.
        bits = min(max(len(self.keys) * 16, 1).bit_length(), 24)
        self._shift = np.uint64(64 - bits)
        self._leads = np.zeros(1 << bits, bool)
        self._leads[self.keys >> self._shift] = True

    def _spread(self, each: NDArray[Any], passage: NDArray[Any], labels: NDArray[Any]) -> None:
        """Count the items of each form, in all and by benchmark."""
        forms = int(each.max(initial=-1)) + 1
        pairs = np.unique(np.stack([each, passage]), axis=1)
        template = np.zeros(forms, bool)
        for label in np.unique(labels):
            mine = np.bincount(pairs[0][labels[pairs[1]] == label], minlength=forms)
            template |= mine > common(ITEM_SHARE, ITEM_FLOOR, int((labels == label).sum()))
        self.template = template[self.form]
        self.items = np.bincount(pairs[0], minlength=forms)[self.form]

    def find(self, hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions in `hashes` that are grams of a passage, ascending, and the numbers of those grams."""
        if not len(self.keys):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        place = np.flatnonzero(self._leads[hashes >> self._shift])
        wanted = hashes[place]
        number = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        same = self.keys[number] == wanted
        return place[same], number[same]

    def owners(self, numbers: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Where grams stand: for every occurrence the index in `numbers`, the passage and the word there."""
        sizes = self._starts[numbers + 1] - self._starts[numbers]
        index = np.repeat(np.arange(len(numbers)), sizes)
        within = np.arange(len(index)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        place = self._starts[numbers][index] + within
        return index, self._passage[place], self._offset[place]


class Library:
    """All passages, ready to be looked for in texts."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = passages
        self.vocabulary: dict[str, int] = {}
        for passage in passages:
            for word in passage.words:
                self.vocabulary.setdefault(word, len(self.vocabulary))
        encoded = [self.encode(passage.words) for passage in passages]
        # The last elements are for the number that stands for no word, -1.
        real = np.array([*map(proper, self.vocabulary), False])
        one = next((i for w, i in self.vocabulary.items() if not proper(w)), 0)
        each = (i if proper(w) else one for w, i in self.vocabulary.items())
        masked = np.array([*each, _UNKNOWN], np.int32)
        names = list(dict.fromkeys(p.benchmark for p in passages))
        labels = [names.index(p.benchmark) for p in passages]
        self.tables = {n: Table(n, encoded, real, masked, labels) for n in SIZES}
        self._encoded = encoded
        self._anchor()

    def encode(self, found: Sequence[str]) -> Ids:
        """Words as numbers; words of no passage are all the same number."""
        return np.fromiter(map(self.vocabulary.get, found, repeat(_UNKNOWN)), np.int32, len(found))

    def _anchor(self) -> None:
        """Choose the rarest 8-gram of every long passage: where it stands, the whole passage may stand."""
        table = self.tables[LONG]
        self._anchors: dict[int, list[tuple[int, int]]] = {}
        for number, ids in enumerate(self._encoded):
            if len(ids) >= LONG:
                _, grams = table.find(ngrams(ids, LONG))
                offset = int(np.argmin(table.items[grams]))
                self._anchors.setdefault(int(grams[offset]), []).append((number, offset))
        self._anchored = np.zeros(len(table.keys), bool)
        self._anchored[list(self._anchors)] = True

    def whole(self, ids: Ids, place: NDArray[np.int64], grams: NDArray[np.int64]) -> list[tuple[int, int]]:
        """(position, passage) for every passage that stands whole in `ids`.

        Args:
            ids: words as numbers, of one or more texts with a separator between them.
            place: positions of 8-grams of passages in it.
            grams: their numbers.
        """
        found = []
        some = self._anchored[grams]
        for at, gram in zip(place[some].tolist(), grams[some].tolist(), strict=True):
            for number, offset in self._anchors[gram]:
                start, wanted = at - offset, self._encoded[number]
                if start >= 0 and np.array_equal(ids[start : start + len(wanted)], wanted):
                    found.append((start, number))
        return found


def join(encoded: Sequence[Ids]) -> Ids:
    """Texts one after the other, each followed by a number that is no word's."""
    if not encoded:
        return np.zeros(0, np.int32)
    gap = np.array([_UNKNOWN], np.int32)
    return np.concatenate([part for ids in encoded for part in (ids, gap)])


def _distinct(windows: NDArray[Any], real: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Different proper words in every row."""
    kept = np.sort(np.where(real[windows], windows, _UNKNOWN), axis=1)
    new = np.concatenate([np.ones((len(kept), 1), bool), kept[:, 1:] != kept[:, :-1]], axis=1)
    return np.asarray((new & (kept != _UNKNOWN)).sum(axis=1), np.int64)
