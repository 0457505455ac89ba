"""How many responses and queries of a pool are left after each stage of a build."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipscope.data.building.pool import COMPLETE, UNJUDGED, VERDICTS, Pool
from dipscope.scoring.base import Verdict


class Funnel:
    """Counts by stage, each of what the stage before left.

    Args:
        pool: the responses.
        reached: the verdict of each of the pool's pairs.
        shortest: least length of a response.
        longest: greatest.
        verified: whether correct responses are asked for.

    Attributes:
        verdicts: (responses,) index in `VERDICTS`; `UNJUDGED` for what is not complete or has no gold.
        fits: (responses,) whether it is complete and of an admitted length.
        counts: by stage the responses that are left, then the queries.
        queries: by stage the queries of which a response is left.
    """

    def __init__(
        self,
        pool: Pool,
        reached: Sequence[Verdict],
        shortest: int | None = None,
        longest: int | None = None,
        *,
        verified: bool,
    ) -> None:
        self._query = np.frombuffer(pool.query, np.uint32)
        state = np.frombuffer(pool.state, np.uint8)
        length = np.frombuffer(pool.length, np.uint32)
        pair = np.frombuffer(pool.pair, np.int32)
        codes = np.array([*(VERDICTS.index(v) for v in reached), UNJUDGED], np.uint8)  # -1 is the last
        self.verdicts: NDArray[np.uint8] = codes[pair]
        self.counts: dict[str, int] = {}
        self.queries: dict[str, int] = {}
        self._stage("responses", np.ones(len(pool), bool))
        self._stage("not cut at the length limit", state > 0)
        self._stage("thinking closed", state > 1)
        self.complete = state == COMPLETE
        self._stage("with a final answer", self.complete)
        self.fits: NDArray[np.bool_] = self.complete.copy()
        if shortest is not None or longest is not None:
            self.fits &= length >= (shortest or 0)
            if longest is not None:
                self.fits &= length <= longest
            self._stage("of an admitted length", self.fits)
        if verified:
            self._stage("with a gold answer", self.fits & (self.verdicts != UNJUDGED))
            self._stage("verified correct", self.fits & (self.verdicts == VERDICTS.index("correct")))

    def note(self, stage: str, queries: int) -> None:
        """Add a stage after responses were chosen, when one stands for a query."""
        self.counts[stage] = self.queries[stage] = queries

    def verification(self) -> dict[str, Any]:
        """Verdicts over all complete responses, as `check.Verification.as_dict` has them."""
        found = self.verdicts[self.complete]
        judged = int((found != UNJUDGED).sum())
        verdicts = {name: int((found == code).sum()) for code, name in enumerate(VERDICTS)}
        return {"rows": len(found), "judged": judged, "without_gold": len(found) - judged,
                "verdicts": verdicts, "changed": 0}  # fmt: skip

    def _stage(self, name: str, left: NDArray[np.bool_]) -> None:
        self.counts[name] = int(left.sum())
        self.queries[name] = len(np.unique(self._query[left]))
