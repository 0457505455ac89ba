"""Length dynamics: do responses first get longer and then shorter again?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dipscope.analysis.ledger import Context, caveats, family, not_tested, told_p, verdict
from dipscope.analysis.panel import Selection
from dipscope.analysis.results import Estimate, Finding
from dipscope.stats.bands import joint_means
from dipscope.stats.paired import holm
from dipscope.stats.shape import Curve, describe
from dipscope.study import AnalysisSpec

LOG_MARGIN = 0.1


@dataclass(frozen=True)
class Lengths:
    """Surge and contraction of one selection, as ratios of geometric mean lengths, and the test."""

    peak_step: int
    surge: Estimate
    contraction: Estimate
    test: Curve


def length_dynamics(selection: Selection, spec: AnalysisSpec) -> Lengths | None:
    """Test surge then contraction on item-paired log lengths; None with fewer than three checkpoints.

    The dip test on −log(1 + tokens): a peak is a trough upside down. `surge` is peak ÷ base and
    `contraction` last ÷ peak, both with limits that hold at every interior checkpoint at once. Changes of
    less than 10 % count as none.
    """
    if len(selection.steps) < 3:
        return None
    means = joint_means(-selection["log_tokens"], selection.cluster, selection.stratum)
    test = describe(means, margin=LOG_MARGIN, alpha=spec.alpha, draws=spec.bootstrap, seed=spec.seed)
    if test.trough is None or test.depth is None or test.recovery is None:
        return None
    surge = Estimate(*(float(np.exp(v)) for v in test.depth))
    value, low, high = (float(np.exp(-v)) for v in test.recovery)
    return Lengths(selection.steps[test.trough], surge, Estimate(value, high, low), test)


def length_findings(ctx: Context) -> list[Finding]:
    """Claim 5: response length surges early and contracts later."""
    claim = "Responses get longer early in training and shorter again later"
    cases = []
    for group in ctx.groups:
        for domain in ctx.domains():
            m = ctx.domain(group, domain)
            found = None if m is None else length_dynamics(m.selection, ctx.spec)
            if m is not None and found is not None:
                cases.append((m, found))
    if not cases:
        return [not_tested("length-surge", claim, "three measured checkpoints per run", figure="lengths")]
    adjusted = holm([found.test.p_dip for _, found in cases])
    against = holm([found.test.p_no_dip for _, found in cases])
    out = []
    for (m, found), p, p_against in zip(cases, adjusted, against, strict=True):
        result = verdict(p, p_against, ctx.spec)
        back = found.contraction
        note = f"last ÷ peak {back.value:.2f} [{back.low:.2f}, {back.high:.2f}]"
        out.append(
            Finding(
                id="length-surge",
                claim=claim,
                scope=f"{m.group.name} · {m.curve.name}",
                test=f"dip test on −log length, paired items{family(len(cases))}",
                verdict=result,
                effect=found.surge,
                unit=f"length at step {found.peak_step} ÷ base",
                p=told_p(result, p, p_against),
                items=m.curve.items,
                seeds=len(m.curve.seeds),
                caveats=(*caveats(m.selection, groups=[m.group], clusters=m.means.clusters), note),
                figure="lengths",
            )
        )
    return out
