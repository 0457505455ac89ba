"""Words of a text in a normal form, and hashes of their n-grams: what duplicates are looked for in."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ASCII = {i: chr(i).lower() if chr(i).isalnum() else " " for i in range(128)}
_WORD = re.compile(r"[^\W_]+")
# Chinese, Japanese and Korean are written without spaces: every character is a word.
_UNSPACED = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af])")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def words(text: str) -> list[str]:
    r"""Runs of letters and digits, without case, compatibility forms and punctuation.

    A LaTeX command is the word of its name: `\frac{1}{2}` gives `frac`, `1`, `2`. A character of a script
    without spaces is a word of its own.
    """
    if text.isascii():
        return text.translate(_ASCII).split()
    found: list[str] = []
    for line in text.split("\n"):  # most lines of most texts are ASCII, which is several times faster
        if line.isascii():
            found += line.translate(_ASCII).split()
        else:
            plain = unicodedata.normalize("NFKC", line).casefold()
            found += _WORD.findall(_UNSPACED.sub(r" \1 ", plain))
    return found


def ngrams(ids: NDArray[np.integer[Any]], n: int) -> NDArray[np.uint64]:
    """A 64-bit hash of every n-gram of `ids`: element i is that of `ids[i : i + n]`.

    The hash is a polynomial in an odd constant whose coefficients are the ids after the 64-bit mixer of
    SplitMix64 (Steele et al., 2014), so that neither order nor small ids leave a pattern.

    Args:
        ids: whole numbers of shape (length,).
        n: words in an n-gram.

    Returns:
        Shape (max(length - n + 1, 0),).
    """
    count = max(len(ids) - n + 1, 0)
    mixed = _mix(ids)
    made = np.zeros(count, np.uint64)
    for j in range(n):
        made *= _FACTOR
        made += mixed[j : j + count]
    return made


def _mix(ids: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
    x = ids.astype(np.uint64) * _FACTOR + _FACTOR
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)
