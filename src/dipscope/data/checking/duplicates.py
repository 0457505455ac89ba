"""Prompts that are a short passage, or nearly a long one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dipscope.data.checking.passages import ITEM_FLOOR, ITEM_SHARE, LONG, Passage, common
from dipscope.data.checking.words import words
from dipscope.errors import DipscopeError

JACCARD = 0.3  # similarity of the trigram sets from which two texts are near duplicates
SHINGLE = 3
LEAST = 4  # trigrams that two texts have in common before they can be near
PERMUTATIONS = 128
# 64 bands of 2 rows: at the threshold a pair becomes a candidate with probability 1 - (1 - 0.3²)⁶⁴ = 0.998.
BANDS = (64, 2)
_SIGN_OR_WORD = re.compile(r"[^\W_]+|[-+*/^=<>−×÷]")
_SIGNS = re.compile(r"(?<![^\s\d])[-+*/^=<>−×÷](?![^\s\d])")
_SENTENCE = re.compile(r"(?<=[.?!])\s+")


class Short:
    """Passages of fewer than 8 words, found as whole prompts, lines, or sentences at the start of a line."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._known: dict[str, list[int]] = {}
        for number, passage in enumerate(passages):
            if 0 < len(passage.words) < LONG:
                self._known.setdefault(_strict(passage.text), []).append(number)

    def find(self, prompt: str) -> list[int]:
        """Passages that the prompt asks."""
        if not self._known:
            return []
        texts = {_strict(text) for text in _short(prompt)}
        return sorted({number for text in texts for number in self._known.get(text, ())})


def _short(prompt: str) -> Iterator[str]:
    """The texts of fewer than 8 words that a prompt may consist of."""
    if len(words(prompt)) < LONG:
        yield prompt
    for line in prompt.splitlines():
        said = ""
        for sentence in _SENTENCE.split(line.strip()):
            said = f"{said} {sentence}"
            if len(words(said)) >= LONG:
                break
            yield said


def _strict(text: str) -> str:
    """Letters, digits and signs, without anything between them."""
    return "".join(_SIGN_OR_WORD.findall(text.casefold()))


def same_signs(passage: Passage, text: str) -> bool:
    """Whether a long passage stands in a text with its own signs of arithmetic.

    A sign is one that stands between numbers or alone; others may be marks of typesetting.

    Args:
        passage: whose words all stand in the text, in order.
        text: the text.
    """
    places = re.compile(r"[\W_]*".join(map(re.escape, passage.words)), re.IGNORECASE)
    own = places.search(passage.text)
    spans = [_SIGNS.findall(place[0]) for place in places.finditer(text)]
    # Without a span the normal form has other letters than the text, and signs cannot be placed.
    return own is None or not spans or _SIGNS.findall(own[0]) in spans


@dataclass(frozen=True)
class Candidate:
    """A text that may be near a passage.

    Attributes:
        passage: its number in the list of all passages.
        known: the text's trigrams that stand in any passage, as numbers.
        size: all trigrams of the text.
    """

    passage: int
    known: frozenset[int]
    size: int


class Near:
    """Passages of at least 4 telling trigrams, found in prompts by the Jaccard similarity of word trigrams.

    Which trigrams are boilerplate of the prompts is known only when all have been seen: so `look` first, at
    every prompt, and then ask for the `similarity` of what it gave, without the trigrams that are `usual`.

    Raises:
        DipscopeError: datasketch is not installed.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError:
            raise DipscopeError(
                "near duplicates need datasketch", "decontamination", "pip install 'dipscope[data]'"
            ) from None
        self._template = _template(passages)
        self._numbers: dict[str, int] = {}
        self._sets: dict[int, frozenset[int]] = {}
        self._prompts: Counter[str] = Counter()
        self._index = MinHashLSH(num_perm=PERMUTATIONS, params=BANDS)
        self._base = MinHash(num_perm=PERMUTATIONS, seed=1)
        for number, passage in enumerate(passages):
            if len(trigrams := self._telling(passage.words)) >= LEAST:
                numbers = (self._numbers.setdefault(t, len(self._numbers)) for t in sorted(trigrams))
                self._sets[number] = frozenset(numbers)
                self._index.insert(number, self._signature(trigrams))

    def look(self, prompt: str, *, new: bool = True) -> list[Candidate]:
        """Passages that may be near to the prompt or to a line of it.

        Args:
            prompt: a user turn.
            new: whether it counts towards what is usual: once for a query.
        """
        found = []
        for text in dict.fromkeys([prompt, *prompt.splitlines()]):
            trigrams = self._telling(words(text))
            known = frozenset(self._numbers[t] for t in trigrams if t in self._numbers)
            if new and text is prompt:
                self._prompts.update({_form(t) for t in trigrams if t in self._numbers})
            # No passage shares more with the text than all passages together do.
            if len(trigrams) < LEAST or len(known) < JACCARD * len(trigrams):
                continue
            for number in self._index.query(self._signature(trigrams)):
                candidate = Candidate(number, known, len(trigrams))
                if self.similarity(candidate) >= JACCARD:
                    found.append(candidate)
        return found

    def usual(self, limit: float) -> frozenset[int]:
        """Trigrams that, numbers masked, stand in the prompts of more than `limit` queries."""
        return frozenset(n for t, n in self._numbers.items() if self._prompts[_form(t)] > limit)

    def similarity(self, candidate: Candidate, usual: frozenset[int] = frozenset()) -> float:
        """Jaccard similarity of a text and its passage without some trigrams; 0 where they share too few."""
        passage = self._sets[candidate.passage] - usual
        size = candidate.size - len(candidate.known & usual)
        shared = len(candidate.known & passage)
        return shared / (size + len(passage) - shared) if shared >= LEAST else 0.0

    def _telling(self, said: Sequence[str]) -> frozenset[str]:
        return frozenset(t for t in _trigrams(said) if _form(t) not in self._template)

    def _signature(self, trigrams: frozenset[str]) -> Any:
        made = self._base.copy()
        made.update_batch([t.encode() for t in trigrams])
        return made


def _template(passages: Sequence[Passage]) -> frozenset[str]:
    """Trigrams, numbers masked, that stand in too many items of a benchmark to tell one from another."""
    sizes = Counter(p.benchmark for p in passages)
    counts = Counter((p.benchmark, f) for p in passages for f in {_form(t) for t in _trigrams(p.words)})
    return frozenset(f for (b, f), n in counts.items() if n > common(ITEM_SHARE, ITEM_FLOOR, sizes[b]))


def _form(trigram: str) -> str:
    return " ".join("0" if word.isdigit() else word for word in trigram.split())


def _trigrams(said: Sequence[str]) -> Iterator[str]:
    return (" ".join(said[i : i + SHINGLE]) for i in range(len(said) - SHINGLE + 1))
