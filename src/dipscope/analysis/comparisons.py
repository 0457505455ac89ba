"""Claims that compare groups of runs: data variants, replay, safety, capability of the base."""

from __future__ import annotations

from dipscope.analysis.ledger import Context
from dipscope.analysis.results import Finding


def comparisons(ctx: Context) -> list[Finding]:
    """All findings between groups, in the order of the ledger."""
    return []
