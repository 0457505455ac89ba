"""How much a response repeats itself: how far it compresses, how many of its n-grams come again."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from dipscope.data.checking.words import ngrams, words

N = 8  # words of the n-grams that count as said before
TAIL = 256  # last n-grams of a response that decide whether it loops
LOOPING = 0.8  # share of them that repeat


@dataclass(frozen=True)
class Repetition:
    """Measures of one response.

    Attributes:
        compression: bytes after zlib at level 1, divided by bytes before, at most 1. Text that says the same
            again and again comes near 0; very short texts do not compress.
        overlap: share of the word 8-grams that occurred earlier in the same response; 0 where there are none.
        looping: of the last 256 8-grams, at least 80 % occurred earlier: the response ends in a loop. A
            response with fewer than 256 8-grams is never called looping.
    """

    compression: float
    overlap: float
    looping: bool


def measure(text: str) -> Repetition:
    """The repetition of one response."""
    raw = text.encode("utf-8", "surrogatepass")
    compression = min(len(zlib.compress(raw, 1)) / len(raw), 1.0) if raw else 1.0
    found = words(text)
    numbers = {word: n for n, word in enumerate(dict.fromkeys(found))}
    ids = np.fromiter(map(numbers.__getitem__, found), np.int64, len(found))
    grams = ngrams(ids, N)
    if not len(grams):
        return Repetition(compression, 0.0, False)
    again = np.ones(len(grams), bool)
    again[np.unique(grams, return_index=True)[1]] = False
    looping = len(grams) >= TAIL and float(again[-TAIL:].mean()) >= LOOPING
    return Repetition(compression, float(again.mean()), looping)
