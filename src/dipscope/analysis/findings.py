"""Claims about one group of runs: gain, dip and recovery, what the dip is made of, early checkpoints."""

from __future__ import annotations

import numpy as np

from dipscope.analysis.curves import Measured, completed_means, completed_scores
from dipscope.analysis.ledger import (
    OOD,
    Context,
    Directional,
    caveats,
    change,
    contrast_of,
    directional,
    estimate,
    family,
    not_tested,
)
from dipscope.analysis.lengths import length_findings
from dipscope.analysis.panel import Group, Selection, select
from dipscope.analysis.results import Claim, Estimate, Finding, Shape
from dipscope.stats.bands import JointMeans, band, joint_means, max_test, sup_t
from dipscope.stats.paired import Contrast, holm
from dipscope.study import AnalysisSpec

_MIN_PAIRED = 20
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
    """Claim 2: out of domain the score first falls and then recovers."""
    claim = "Out of domain, the score dips and then recovers"
    out = []
    for m in _ood(ctx):
        shape, test = m.curve.shape, m.test
        figure = f"curves:{m.curve.name}"
        scope = f"{m.group.name} · {m.curve.name}"
        if shape is None or test is None or shape.trough_step is None:
            out.append(
                not_tested(
                    "dip-recovery", claim, "a checkpoint between the base and the last one", scope, figure
                )
            )
            continue
        result: Claim = "inconclusive"
        notes = list(caveats(m.selection, groups=[m.group], clusters=m.means.clusters))
        if shape.label in ("dip-and-recover", "dip-and-overshoot"):
            result = "supported"
        elif shape.no_dip or shape.label in ("flat", "partial-recovery"):
            result = "contradicted"
        elif shape.label in ("fall-and-stay", "fall") and shape.net.high < -ctx.spec.margin:
            result = "contradicted"
            notes.append("the score falls and is below the base by more than the margin at the end")
        if shape.label == "dip":
            notes.append(
                "the score falls and rises again; a return to within the margin of the base is not shown"
            )
        if shape.label == "partial-recovery":
            notes.append("the score rises again but ends below the base by more than the margin")
        if shape.depth_corrected is not None:
            notes.append(f"depth corrected for choosing the trough: {100 * shape.depth_corrected:.1f} points")
        out.append(
            Finding(
                id="dip-recovery",
                claim=claim,
                scope=scope,
                test="max–min over interior troughs, bootstrap; Holm over the study's domain curves",
                verdict=result,
                effect=shape.depth,
                unit="depth of the trough, score",
                p=shape.p_dip_holm,
                items=m.curve.items,
                seeds=len(m.curve.seeds),
                caveats=tuple(notes),
                figure=figure,
            )
        )
    return out or [not_tested("dip-recovery", claim, "an out-of-domain benchmark and three checkpoints")]


def termination(ctx: Context) -> list[Finding]:
    """Claim 3: a dip is made of responses that do not end."""
    claim = "The dip is a termination dip: most of it is responses that do not end"
    cases: list[tuple[Measured, Shape, Contrast, Contrast, str]] = []
    for m in ctx.curves:
        shape = m.curve.shape
        if m.curve.level != "domain" or m.curve.probe != "generate" or shape is None or m.test is None:
            continue
        if m.test.trough is None or not _dipped(shape):
            continue
        half, rest, test = _explained(m.selection, m.test.trough)
        cases.append((m, shape, contrast_of(half, ctx.spec), contrast_of(rest, ctx.spec), test))
    if not cases:
        return [
            not_tested("termination-dip", claim, "a curve with a significant dip", figure="decomposition")
        ]
    adjusted = holm([c.p for *_, c, _, _ in cases])
    out = []
    for (m, shape, half_left, left, test), p in zip(cases, adjusted, strict=True):
        result: Claim = "inconclusive"
        if half_left.value > 0 and p < ctx.spec.alpha:
            result = "supported"
        elif half_left.value < 0 and p < ctx.spec.alpha and left.value > ctx.spec.margin:
            result = "contradicted"
        notes = list(caveats(m.selection, groups=[m.group], clusters=half_left.clusters))
        if shape.p_dip_completed is not None:
            notes.append(f"dip test among completed responses: p = {shape.p_dip_completed:.3g}")
        out.append(
            Finding(
                id="termination-dip",
                claim=claim,
                scope=f"{m.group.name} · {m.curve.name}",
                test=f"paired t: less than half of the depth is left {test}{family(len(cases))}",
                verdict=result,
                effect=estimate(left),
                unit=f"depth left {test}, score",
                p=p,
                items=m.curve.items,
                seeds=len(m.curve.seeds),
                caveats=tuple(notes),
                figure=f"decomposition:{m.group.name}",
            )
        )
    return out


def _explained(selection: Selection, trough: int) -> tuple[JointMeans, JointMeans, str]:
    """Half the depth minus the depth without truncation, and the latter; and how it was measured.

    Among responses that ended by themselves where enough items have them at base and trough; otherwise
    with every truncated response counted as right (the upper bound).
    """
    fall = np.zeros((len(selection.steps), 1))
    fall[0], fall[trough] = 1.0, -1.0
    cluster, stratum = selection.cluster, selection.stratum
    whole, done = joint_means(selection["score"], cluster, stratum), completed_means(selection)
    score = selection["score"].mean(axis=0)
    completed = completed_scores(selection["completed"], selection["stopped"])
    left, test = completed @ fall, "among completed responses"
    if np.sum(~np.isnan(left)) < _MIN_PAIRED:
        left, test = selection["upper"].mean(axis=0) @ fall, "with truncated as right"
        done = joint_means(selection["upper"], cluster, stratum)
    # The depth is that of all items: a cut-off item has no completed response to be paired with.
    items = joint_means(np.hstack([score @ fall, left])[None], cluster, stratum)
    seeds = [block @ np.array([[1.0, 0.0]]) for block in whole.linear(fall).seeds]
    seeds += [block @ np.array([[0.0, 1.0]]) for block in done.linear(fall).seeds]
    joint = JointMeans(items.mean, items.rows, tuple(seeds))
    return joint.linear(np.array([[0.5], [-1.0]])), joint.linear(np.array([[0.0], [1.0]])), test


def captured_format(ctx: Context) -> list[Finding]:
    """Claim 4: the model no longer says what it still prefers."""
    claim = "The format is captured: generation falls while the likelihood of the right option holds"
    cases = []
    for group in ctx.groups:
        for domain in ctx.domains():
            pair = _two_probes(ctx, group, domain)
            if pair is not None:
                cases.append((group, domain, *pair))
    if not cases:
        needs = "benchmarks measured by generation and by the likelihood of options, at two checkpoints"
        return [not_tested("captured-format", claim, needs)]
    spec = ctx.spec
    falls = holm([fall for *_, fall, _, _, _, _ in cases])
    kept = holm([p for *_, p, _, _, _ in cases])
    out = []
    for (group, domain, step, n, _, _, rest, loss, gen), p_fall, p_kept in zip(
        cases, falls, kept, strict=True
    ):
        scope = f"{group.name} · {domain}"
        figure = f"curves:{domain}"
        if p_fall >= spec.alpha:
            needs = "a significant fall of the generated score on benchmarks that have both probes"
            out.append(not_tested("captured-format", claim, needs, scope, figure))
            continue
        result: Claim = "inconclusive"
        if rest.value > 0 and p_kept < spec.alpha:
            result = "supported"
        elif rest.value < 0 and p_kept < spec.alpha and loss.value > spec.margin:
            result = "contradicted"
        holds = loss.p_less(spec.margin) < spec.alpha
        notes = [
            f"at step {step} generation lost {100 * gen:.1f} points, likelihood {100 * loss.value:.1f}",
            "the likelihood probe is "
            + ("" if holds else "not shown to be ")
            + "non-inferior to the base within the margin",
        ]
        out.append(
            Finding(
                id="captured-format",
                claim=claim,
                scope=scope,
                test="generation falls (sup-t over steps) and the likelihood probe loses less than half as "
                f"much (paired t, Bonferroni over steps){family(len(cases))}",
                verdict=result,
                effect=estimate(loss),
                unit="loss of the likelihood probe, score",
                p=max(p_fall, p_kept),
                items=n,
                seeds=len(group.seeds),
                caveats=(*caveats(groups=[group], clusters=loss.clusters), *notes),
                figure=figure,
            )
        )
    return out


def _two_probes(
    ctx: Context, group: Group, domain: str
) -> tuple[int, int, float, float, Contrast, Contrast, float] | None:
    """The deepest fall: step, items, its p, p of the next, half of it minus the likelihood's loss, that loss.

    The step was chosen by the data, so both p-values are corrected for the number of steps.
    """
    names = [p.benchmark for p in ctx.members(domain, "likelihood")]
    generated = [p for p in ctx.members(domain) if p.benchmark in names]
    if not generated:
        return None
    likelihood = [ctx.panels["likelihood", p.benchmark] for p in generated]
    told, preferred = select(group, generated), select(group, likelihood)
    if told is None or preferred is None:
        return None
    steps = tuple(s for s in told.steps if s in preferred.steps)
    if len(steps) < 2:
        return None
    told, preferred = select(group, generated, steps), select(group, likelihood, steps)
    if told is None or preferred is None:
        return None
    falls = joint_means(told["score"][:, :, :1] - told["score"][:, :, 1:], told.cluster, told.stratum)
    at, p_fall = max_test(falls, ctx.spec.bootstrap, ctx.spec.seed)
    loss = change(preferred, first=at + 1, last=0)
    # Halved fall and loss come from the same items, but not all items may have both probes: treating the
    # two as independent would overstate the error when they move together, so it errs on the careful side.
    fall = falls.linear(np.eye(len(steps) - 1)[:, [at]])
    rest = JointMeans(
        0.5 * fall.mean - loss.mean,
        np.vstack([0.5 * fall.rows, -loss.rows]),
        tuple(0.5 * b for b in fall.seeds) + tuple(-b for b in loss.seeds),
    )
    n = told["score"].shape[1]
    spec = ctx.spec
    kept = contrast_of(rest, spec)
    p_kept = min(1.0, (len(steps) - 1) * kept.p)
    return steps[at + 1], n, p_fall, p_kept, kept, contrast_of(loss, spec), float(fall.mean[0])


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
        result: Claim = "supported" if p < ctx.spec.alpha else "inconclusive"
        if result != "supported" and p_against < ctx.spec.alpha / 2:
            result = "contradicted"
        out.append(
            Finding(
                id="early-understates",
                claim=claim,
                scope=f"{m.group.name} · {m.curve.name}",
                test=f"one-sided sup-t over checkpoints in the first quarter{family(len(cases))}",
                verdict=result,
                effect=Estimate(float(gains.mean[best]), float(low[best]), float(high[best])),
                unit=f"last − step {m.selection.steps[_early(m.selection.steps)[best]]}, score",
                p=p,
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


def _dipped(shape: Shape) -> bool:
    return shape.label in ("dip-and-recover", "dip-and-overshoot", "partial-recovery", "dip")


def within_groups(ctx: Context) -> list[Finding]:
    """All findings about single groups, in the order of the ledger."""
    rules = (
        in_domain_gain,
        dip_and_recovery,
        termination,
        captured_format,
        length_findings,
        early_understates,
    )
    return [finding for rule in rules for finding in rule(ctx)]
