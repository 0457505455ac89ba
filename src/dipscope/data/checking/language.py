"""In which languages a data set answers: identified on a bounded sample of its responses."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Callable

from dipscope.errors import DipscopeError

SAMPLE = 512  # responses that are identified
HEAD = 2000  # characters of each
LETTERS = 24  # with fewer, no language is named
UNDETERMINED = "und"  # ISO 639-2
_FORMAL = re.compile(
    r"```.*?(?:```|\Z)|\$\$.*?\$\$|\$[^$\n]*\$|\\[a-zA-Z]+|</?\w+>|[^\W\d_]*\d\w*", re.DOTALL
)


def identifier() -> Callable[[str], str]:
    """What names the language of a text: an ISO 639 code, `und` where there is too little text.

    Code, formulas and numbers do not count as text.

    Raises:
        DipscopeError: py3langid is not installed.
    """
    try:
        import py3langid
    except ImportError:
        raise DipscopeError(
            "naming languages needs py3langid", "data check", "pip install 'dipscope[data]'"
        ) from None

    def identify(text: str) -> str:
        prose = " ".join(_FORMAL.sub(" ", text).split())
        if sum(map(str.isalpha, prose)) < LETTERS:
            return UNDETERMINED
        return str(py3langid.classify(prose)[0])

    return identify


class Sample:
    """A sample of responses whose size is bounded and whose choice does not depend on the order of rows.

    It keeps the responses whose row ids have the smallest hashes, so two variants of one table are judged
    on the same rows.
    """

    def __init__(self, size: int = SAMPLE) -> None:
        self.size = size
        self._kept: list[tuple[int, str]] = []

    def offer(self, row: str, text: str) -> None:
        """Take a response into account."""
        rank = int.from_bytes(hashlib.blake2b(row.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        entry = (-rank, text[:HEAD])
        if len(self._kept) < self.size:
            heapq.heappush(self._kept, entry)
        elif entry > self._kept[0]:
            heapq.heapreplace(self._kept, entry)

    def count(self, identify: Callable[[str], str]) -> dict[str, int]:
        """Responses by language, the most frequent first."""
        counts = Counter(identify(text) for _, text in self._kept)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
