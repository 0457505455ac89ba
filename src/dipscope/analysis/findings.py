"""Claims about the curves of one group of runs: gain, dip and recovery, early checkpoints."""

from __future__ import annotations

import numpy as np

from dipscope.analysis.curves import Measured
from dipscope.analysis.ledger import (
    OOD,
    Context,
    Directional,
    caveats,
    contrast_of,
    directional,
    family,
    in_points,
    not_tested,
    told_p,
    verdict,
)
from dipscope.analysis.results import Estimate, Finding, Shape
from dipscope.stats.bands import JointMeans, band, max_test, sup_t
from dipscope.stats.paired import holm
from dipscope.study import AnalysisSpec

_EARLY = 0.25
_CHECKPOINTS = "at least two measured checkpoints per run"


def in_domain_gain(ctx: Context) -> list[Finding]:
    """Claim 1: fine-tuning raises the in-domain score."""
    claim = "Fine-tuning raises the in-domain score"
    cases = []
    for group in ctx.groups:
        m = ctx.domain(group, "in_domain")
        if m is None or m.test is None:
            continue
        cases.append(
            Directional(
                group.name, m.test.net, m.curve.items, len(group.seeds),
                caveats(m.selection, groups=[group], clusters=m.means.clusters), "curves:in_domain",
            )
        )  # fmt: skip
    if not cases:
        needs = f"an in_domain benchmark and {_CHECKPOINTS}"
        return [not_tested("in-domain-gain", claim, needs, figure="curves:in_domain")]
    return directional("in-domain-gain", claim, "paired t, last − base", cases, ctx.spec)


def dip_and_recovery(ctx: Context) -> list[Finding]:
    """Claim 2: out of domain the score first falls and is back at the base in the end."""
    claim = "Out of domain, the score dips and then recovers to the base"
    out = []
    for m in _ood(ctx):
        shape = m.curve.shape
        figure = f"curves:{m.curve.name}"
        scope = f"{m.group.name} · {m.curve.name}"
        if shape is None or shape.trough_step is None:
            needs = "a checkpoint between the base and the last one"
            out.append(not_tested("dip-recovery", claim, needs, scope, figure))
            continue
        # A dip that is significant but smaller than the margin is called flat, not a recovery.
        back = shape.label in ("dip-and-recover", "dip-and-overshoot")
        result = verdict(shape.p_returns_holm, shape.p_against_holm, ctx.spec, positive=back)
        out.append(
            Finding(
                id="dip-recovery",
                claim=claim,
                scope=scope,
                test="max–min over interior troughs, bootstrap, and non-inferiority of the end to the base "
                "within the margin; Holm over the study's domain curves",
                verdict=result,
                effect=shape.depth,
                unit="depth of the trough, score",
                p=told_p(result, shape.p_returns_holm, shape.p_against_holm),
                items=m.curve.items,
                seeds=len(m.curve.seeds),
                caveats=(
                    *caveats(m.selection, groups=[m.group], clusters=m.means.clusters),
                    *_how_it_ends(shape, ctx.spec),
                ),
                figure=figure,
            )
        )
    return out or [not_tested("dip-recovery", claim, "an out-of-domain benchmark and three checkpoints")]


def _how_it_ends(shape: Shape, spec: AnalysisSpec) -> tuple[str, ...]:
    """What a reader of the depth must know: the selected depth, the end, and what is not shown about it."""
    out = [f"trough at step {shape.trough_step}"]
    if shape.trough_range is not None and shape.trough_range[0] != shape.trough_range[1]:
        out[0] += " (bootstrap range {} to {})".format(*shape.trough_range)
    if shape.depth_corrected is not None:
        out[0] += f"; depth corrected for choosing it {100 * shape.depth_corrected:.1f} points"
    net = f"last − base {in_points(shape.net)}"
    if shape.p_dip_holm >= spec.alpha:
        return (*out, f"no significant fall and rise (p = {shape.p_dip_holm:.2g}); {net}")
    if shape.label == "flat":
        return (*out, f"the whole curve lies within the margin of the base; {net}")
    if shape.p_returns_holm >= spec.alpha:
        ends = "it ends below the base by more than the margin"
        if shape.label != "partial-recovery":
            ends = "return to the base is not established"
        return (*out, f"falls and rises again (p = {shape.p_dip_holm:.2g}); {ends}: {net}")
    return (*out, net)


def early_understates(ctx: Context) -> list[Finding]:
    """Claim 6: whoever stops early sees less generalization than the last checkpoint shows."""
    claim = "An early checkpoint understates out-of-domain performance"
    cases: list[tuple[Measured, int, JointMeans, float]] = []
    for m in _ood(ctx):
        steps = m.selection.steps
        early = _early(steps)
        if not early:
            continue
        weights = np.zeros((len(steps), len(early)))
        weights[-1] = 1.0
        weights[early, range(len(early))] = -1.0
        gains = m.means.linear(weights)
        best, p = max_test(gains, ctx.spec.bootstrap, ctx.spec.seed)
        cases.append((m, best, gains, p))
    if not cases:
        needs = "an out-of-domain benchmark and a checkpoint in the first quarter of training"
        return [not_tested("early-understates", claim, needs)]
    adjusted = holm([p for *_, p in cases])
    against = holm([_all_below(gains, ctx.spec) for _, _, gains, _ in cases])
    out = []
    for (m, best, gains, _), p, p_against in zip(cases, adjusted, against, strict=True):
        low, high = band(gains, sup_t(gains, ctx.spec.alpha, ctx.spec.bootstrap, ctx.spec.seed))
        result = verdict(p, p_against, ctx.spec)
        out.append(
            Finding(
                id="early-understates",
                claim=claim,
                scope=f"{m.group.name} · {m.curve.name}",
                test=f"one-sided sup-t over checkpoints in the first quarter{family(len(cases))}",
                verdict=result,
                effect=Estimate(float(gains.mean[best]), float(low[best]), float(high[best])),
                unit=f"last − step {m.selection.steps[_early(m.selection.steps)[best]]}, score",
                p=told_p(result, p, p_against),
                items=m.curve.items,
                seeds=len(m.curve.seeds),
                caveats=caveats(m.selection, groups=[m.group], clusters=m.means.clusters),
                figure=f"curves:{m.curve.name}",
            )
        )
    return out


def _all_below(gains: JointMeans, spec: AnalysisSpec) -> float:
    """P-value that every gain is below −margin: the largest of the single ones."""
    columns = np.eye(len(gains.mean))
    return max(
        contrast_of(gains.linear(columns[:, [i]]), spec).p_less(-spec.margin) for i in range(len(columns))
    )


def _ood(ctx: Context) -> list[Measured]:
    return [m for g in ctx.groups for d in OOD if (m := ctx.domain(g, d)) is not None and m.test is not None]


def _early(steps: tuple[int, ...]) -> list[int]:
    """Indices of the checkpoints in the first quarter of training, at least the first one; not the last."""
    return [t for t in range(1, len(steps) - 1) if steps[t] <= max(_EARLY * steps[-1], steps[1])]
