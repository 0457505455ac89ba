"""Claims about what a fall is made of: responses that do not end, or an answer that is only not written."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dipscope.analysis.curves import Measured, completed_means, completed_scores, with_seeds
from dipscope.analysis.ledger import Context, caveats, family, in_points, not_tested
from dipscope.analysis.panel import Group, Selection, select_both
from dipscope.analysis.results import Claim, Estimate, Finding, Shape, dipped
from dipscope.stats.bands import JointMeans, band, chosen_p, joint_means, max_test, sup_t
from dipscope.stats.paired import holm
from dipscope.study import AnalysisSpec

_MIN_PAIRED = 20


def termination(ctx: Context) -> list[Finding]:
    """Claim 3: a dip is made of responses that do not end."""
    claim = "The dip is a termination dip: most of it is responses that do not end"
    cases: list[tuple[Measured, Shape, Remainder]] = []
    for m in ctx.curves:
        shape = m.curve.shape
        if m.curve.level != "domain" or m.curve.probe != "generate" or shape is None or m.test is None:
            continue
        if m.test.trough is not None and dipped(shape.label):
            cases.append((m, shape, _explained(m.selection, m.test.trough, ctx.spec)))
    if not cases:
        return [
            not_tested("termination-dip", claim, "a curve with a significant dip", figure="decomposition")
        ]
    adjusted = holm([rest.p for *_, rest in cases])
    out = []
    for (m, shape, rest), p in zip(cases, adjusted, strict=True):
        notes = list(caveats(m.selection, groups=[m.group], clusters=m.means.clusters))
        if shape.p_dip_completed is not None:
            notes.append(f"dip test among completed responses: p = {shape.p_dip_completed:.3g}")
        out.append(
            Finding(
                id="termination-dip",
                claim=claim,
                scope=f"{m.group.name} · {m.curve.name}",
                test=f"less than half of the depth is left {rest.how}, sup-t over steps{family(len(cases))}",
                verdict=rest.verdict(p, ctx.spec),
                effect=rest.left,
                unit=f"depth left {rest.how}, score",
                p=p,
                items=m.curve.items,
                seeds=len(m.curve.seeds),
                caveats=tuple(notes),
                figure=f"decomposition:{m.group.name}",
            )
        )
    return out


@dataclass(frozen=True)
class Remainder:
    """Half of a fall minus what is left of it when measured another way, at a step the data chose.

    `p` is two-sided and, like the limits of `left`, valid at every step at once.
    """

    value: float
    p: float
    left: Estimate
    how: str = ""

    def verdict(self, p: float, spec: AnalysisSpec) -> Claim:
        """Verdict on 'less than half is left' from the adjusted p; contradicted needs some to be left."""
        if p >= spec.alpha:
            return "inconclusive"
        if self.value > 0:
            return "supported"
        return "contradicted" if self.left.value > spec.margin else "inconclusive"


def remainder(fall: JointMeans, left: JointMeans, at: int, spec: AnalysisSpec, how: str = "") -> Remainder:
    """`fall` and `left` have one column a step and come from the same items, row by row."""
    seeds = (*(replace(s, weights=0.5 * s.weights) for s in fall.seeds), *left.seeds)
    rest = JointMeans(0.5 * fall.mean - left.mean, 0.5 * fall.rows - left.rows, seeds)
    turned = rest.linear(-np.eye(len(rest.mean)))
    p = 2 * min(chosen_p(side, at, spec.bootstrap, spec.seed) for side in (rest, turned))
    low, high = band(left, sup_t(left, spec.alpha, spec.bootstrap, spec.seed))
    value = Estimate(float(left.mean[at]), float(low[at]), float(high[at]))
    return Remainder(float(rest.mean[at]), min(1.0, p), value, how)


def _explained(selection: Selection, trough: int, spec: AnalysisSpec) -> Remainder:
    """What is left of the depth among responses that ended by themselves.

    Where too few items have those at base and trough, every truncated response counts as right instead (the
    upper bound). Items are paired; the variance between seeds is that of the seeds' curves.
    """
    falls = -np.eye(len(selection.steps))[:, 1:-1]
    falls[0] = 1.0
    cluster, stratum = selection.cluster, selection.stratum
    whole = joint_means(selection["score"], cluster, stratum).linear(falls)
    completed = completed_scores(selection["completed"], selection["stopped"])
    pairs = completed[:, [0]] - completed[:, 1:-1]
    # The depth is that of all items: a cut-off item has no completed response to be paired with.
    left = joint_means(pairs[None], cluster, stratum)
    left, how = with_seeds(left, completed_means(selection).linear(falls)), "among completed responses"
    if np.sum(~np.isnan(pairs[:, trough - 1])) < _MIN_PAIRED:
        left, how = joint_means(selection["upper"], cluster, stratum).linear(falls), "with truncated as right"
    return remainder(whole, left, trough - 1, spec, how)


def captured_format(ctx: Context) -> list[Finding]:
    """Claim 4: the model no longer says what it still prefers."""
    claim = "The format is captured: generation falls while the likelihood of the right option holds"
    cases = []
    for group in ctx.groups:
        for domain in ctx.domains():
            pair = _two_probes(ctx, group, domain)
            if pair is not None:
                cases.append((group, domain, pair))
    if not cases:
        needs = "benchmarks measured by generation and by the likelihood of options, at two checkpoints"
        return [not_tested("captured-format", claim, needs)]
    spec = ctx.spec
    falls = holm([pair.p_fall for *_, pair in cases])
    kept = holm([pair.rest.p for *_, pair in cases])
    out = []
    for (group, domain, pair), p_fall, p_kept in zip(cases, falls, kept, strict=True):
        scope = f"{group.name} · {domain}"
        figure = f"curves:{domain}"
        if p_fall >= spec.alpha:
            needs = "a significant fall of the generated score on benchmarks that have both probes"
            out.append(not_tested("captured-format", claim, needs, scope, figure))
            continue
        notes = [f"at step {pair.step}, the clearest fall, the loss of generation is {in_points(pair.fall)}"]
        if pair.rest.left.high >= spec.margin:
            notes.append("that the likelihood probe lost less than the margin is not established")
        out.append(
            Finding(
                id="captured-format",
                claim=claim,
                scope=scope,
                test="generation falls and the likelihood probe loses less than half as much, sup-t over "
                f"steps, items paired over both probes{family(len(cases))}",
                verdict=pair.rest.verdict(p_kept, spec),
                effect=pair.rest.left,
                unit="loss of the likelihood probe, score",
                p=max(p_fall, p_kept),
                items=pair.items,
                seeds=len(group.seeds),
                caveats=(*caveats(pair.generated, groups=[group], clusters=pair.clusters), *notes),
                figure=figure,
            )
        )
    return out


@dataclass(frozen=True)
class _Probes:
    """The clearest fall of the generated score and what the likelihood probe lost there, on joint items."""

    step: int
    fall: Estimate
    p_fall: float
    rest: Remainder
    items: int
    clusters: int
    generated: Selection


def _two_probes(ctx: Context, group: Group, domain: str) -> _Probes | None:
    names = [p.benchmark for p in ctx.members(domain, "likelihood")]
    generated = [p for p in ctx.members(domain) if p.benchmark in names]
    if not generated or not group.steps:
        return None
    found = select_both(group, generated, [ctx.panels["likelihood", p.benchmark] for p in generated])
    if found is None:
        return None
    spec, columns = ctx.spec, len(found.steps)
    # Each probe has a variance between seeds of its own.
    pool = np.repeat(np.arange(2), columns)
    both = joint_means(found["score"], found.cluster, found.stratum, pool)
    falls = np.zeros((2 * columns, 2 * (columns - 1)))
    for t in range(1, columns):
        for first, column in ((0, t - 1), (columns, columns + t - 2)):
            falls[first, column], falls[first + t, column] = 1.0, -1.0
    told, preferred = both.linear(falls[:, : columns - 1]), both.linear(falls[:, columns - 1 :])
    at, p_fall = max_test(told, spec.bootstrap, spec.seed)
    low, high = band(told, sup_t(told, spec.alpha, spec.bootstrap, spec.seed))
    return _Probes(
        found.steps[at + 1],
        Estimate(float(told.mean[at]), float(low[at]), float(high[at])),
        p_fall,
        remainder(told, preferred, at, spec),
        found["score"].shape[1],
        both.clusters,
        replace(found, arrays={k: v[:, :, :columns] for k, v in found.arrays.items()}),
    )
