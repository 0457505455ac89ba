"""Which supervised tokens of a row are thinking, which are the answer, and which ends the turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipscope.data.tokenize import Example, opens_thinking
from dipscope.scoring.thinking import MARKS, OPEN


@dataclass(frozen=True)
class Parts:
    """How a target divides, in tokens, one part after the other.

    Attributes:
        thinking: up to the token, included, in which the last closing mark ends.
        answer: what follows, or everything where nothing was opened.
        eos: 1 for the end of the turn, 0 where a row was cut.
    """

    thinking: int
    answer: int
    eos: int


class PartFinder:
    """Divides targets as `scoring.thinking.split` divides their text, without decoding them.

    All marks end in ">". The few tokens of a vocabulary in which one may end are looked up once; in a row
    only the places of these tokens are decoded, each with what stands before it. So it does not matter
    whether a mark is one special token or spelled in several, of which the last may carry some of the
    answer (">," for instance), as long as tokens are pieces of text: byte-level, SentencePiece, whole words.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        pieces = tokenizer.get_vocab()
        size = max(pieces.values(), default=0) + 1
        texts = {i: self._text([i]) for piece, i in pieces.items() if ">" in piece}
        self._ends = {}
        for mark in (mark for pair in MARKS for mark in pair):
            self._ends[mark] = np.zeros(size + 1, np.bool_)  # the last stands for ids beyond the vocabulary
            self._ends[mark][[i for i, text in texts.items() if _may_end(text, mark)]] = True

    def parts(self, row: Example) -> Parts:
        """The parts of a row's target."""
        eos = 0 if row.cut else 1
        body = np.array(row.target_ids[: len(row.target_ids) - eos], np.int64)
        for start, end in MARKS:
            thinking = self._after_last(body, end)
            if thinking:
                return Parts(thinking, len(body) - thinking, eos)
            if self._after_last(body, start):
                return Parts(len(body), 0, eos)  # opened and never closed
        if self._opened(row):
            return Parts(len(body), 0, eos)
        return Parts(0, len(body), eos)

    def _opened(self, row: Example) -> bool:
        tail = np.array(row.prompt_ids[-8:], np.int64)
        return bool(self._may_end(tail, OPEN).any()) and opens_thinking(self.tokenizer, row.prompt_ids)

    def _after_last(self, ids: NDArray[np.int64], mark: str) -> int:
        """The place after the token in which the last `mark` of `ids` ends; 0 where there is none."""
        for place in np.flatnonzero(self._may_end(ids, mark))[::-1].tolist():
            window = ids[max(0, place - len(mark)) : place + 1].tolist()
            if self._text(window).count(mark) > self._text(window[:-1]).count(mark):
                return int(place) + 1
        return 0

    def _may_end(self, ids: NDArray[np.int64], mark: str) -> NDArray[np.bool_]:
        return self._ends[mark].take(ids, mode="clip")

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))


def _may_end(text: str, mark: str) -> bool:
    """Whether `mark` can end inside a token of this text, whatever stands before it."""
    heads = (text[: place + 1] for place, sign in enumerate(text) if sign == ">")
    return any(head.endswith(mark) or mark.endswith(head) for head in heads)
