"""What the analysis hands to the page, the terminal and the export: plain data, written as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from dipscope.stats.shape import Label

Claim = Literal["supported", "contradicted", "inconclusive", "not tested"]


def dipped(label: Label) -> bool:
    """Whether a shape's name says that the dip test rejected: the curve fell and rose again."""
    return label in ("dip-and-recover", "dip-and-overshoot", "partial-recovery", "dip")


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, in the unit of the thing it estimates."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """One checkpoint on one curve. Shares and scores are in [0, 1], lengths in tokens.

    `low` and `high` bound the score simultaneously over the whole curve (sup-t band); `lower_bound` and
    `upper_bound` are the score with every truncated response counted as 0 and as 1. `completed` is the
    score among responses that ended by themselves, None when there are none.
    """

    step: int
    score: float
    low: float
    high: float
    completed: float | None
    lower_bound: float
    upper_bound: float
    truncated: float
    unclosed: float
    missing: float
    coverage: float
    tokens: float
    reasoning_tokens: float


@dataclass(frozen=True)
class Loss:
    """The change of the score from the base at one step, split by what the response failed at.

    The three parts add up to `change`: a rise in truncated or missing answers counts against the score in
    `truncation` and `missing`, the rest of the change is in `wrong`.
    """

    step: int
    change: float
    truncation: float
    missing: float
    wrong: float


@dataclass(frozen=True)
class Shape:
    """What a curve is called after the test, and the quantities behind it (score units, paired items).

    `p_dip_completed` repeats the dip test among responses that ended by themselves. `p_returns_holm` is for
    'dips and is back at the base within the margin', `p_against_holm` for its opposite. `trough_range` is the
    bootstrap range of the trough's step. `p_hump` tests rise-then-fall. What ends in `_holm` is corrected for
    all curves of the same level and probe.
    """

    label: Label
    p_dip: float
    p_dip_holm: float
    p_dip_completed: float | None
    trough_step: int | None
    depth: Estimate | None
    depth_corrected: float | None
    recovery: Estimate | None
    net: Estimate
    small_n: bool
    trough_range: tuple[int, int] | None = None
    p_hump: float = 1.0
    p_returns_holm: float = 1.0
    p_against_holm: float = 1.0


@dataclass(frozen=True)
class Curve:
    """One metric over the steps of a group of runs that differ in nothing but the seed.

    `level` is `benchmark` or `domain`; `probe` is `generate` or `likelihood`. `group` names
    model/dataset/recipe, `seeds` the training seeds averaged over.
    """

    group: str
    model: str
    dataset: str
    recipe: str
    seeds: tuple[int, ...]
    level: Literal["benchmark", "domain"]
    name: str
    domain: str
    probe: str
    items: int
    samples: int
    points: tuple[Point, ...]
    losses: tuple[Loss, ...]
    shape: Shape | None
    per_seed: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One line of the ledger: a claim, how it was tested, and what came out.

    `p` is that of the claim, or of its opposite where the claim is contradicted; corrected for the family.
    """

    id: str
    claim: str
    scope: str
    test: str
    verdict: Claim
    effect: Estimate | None = None
    unit: str = "score"
    p: float | None = None
    items: int = 0
    seeds: int = 0
    caveats: tuple[str, ...] = ()
    needs: str = ""
    figure: str = ""


@dataclass(frozen=True)
class Analysis:
    """Everything that follows from the records of one study."""

    study: str
    records: int
    records_digest: str
    curves: tuple[Curve, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
