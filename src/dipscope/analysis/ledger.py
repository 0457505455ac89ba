"""What all findings share: the context they read, verdict rules, caveats, and families of tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dipscope.analysis.curves import Measured
from dipscope.analysis.panel import OVER_REFUSAL, Group, Panel, Selection, select
from dipscope.analysis.results import Claim, Estimate, Finding
from dipscope.stats.bands import JointMeans, SeedVariance, joint_means
from dipscope.stats.paired import Contrast, contrast, holm
from dipscope.stats.shape import SMALL_N
from dipscope.study import AnalysisSpec

OOD = ("ood_reasoning", "ood_general")
SAFETY = ("safety", OVER_REFUSAL)
TRUNCATION_WORTH_SAYING = 0.02
MISSING_WORTH_SAYING = 0.05


@dataclass(frozen=True)
class Context:
    """All that findings may look at: groups, panels, measured curves, and the spec."""

    groups: tuple[Group, ...]
    panels: dict[tuple[str, str], Panel]
    curves: tuple[Measured, ...]
    spec: AnalysisSpec

    def domain(self, group: Group, name: str, probe: str = "generate") -> Measured | None:
        """The domain curve of a group, if it was measured."""
        for m in self.curves:
            c = m.curve
            if (c.level, c.name, c.group, c.probe) == ("domain", name, group.name, probe):
                return m
        return None

    def members(self, domain: str, probe: str = "generate") -> list[Panel]:
        """The benchmarks of a domain that have a probe."""
        return [p for (kind, _), p in self.panels.items() if kind == probe and p.domain == domain]

    def domains(self) -> list[str]:
        """The domains that were measured by generation, in the usual order."""
        order = ("in_domain", *OOD, *SAFETY)
        present = {p.domain for (kind, _), p in self.panels.items() if kind == "generate"}
        return [d for d in order if d in present] + sorted(present - set(order))


def mean_curve(selection: Selection, metric: str = "score") -> JointMeans:
    """Joint means of a metric over all steps, so that the variance between seeds is pooled over them."""
    return joint_means(selection[metric], selection.cluster, selection.stratum)


def change(selection: Selection, metric: str = "score") -> JointMeans:
    """Paired change of a metric from the first to the last step, one column."""
    weights = np.zeros((len(selection.steps), 1))
    weights[0], weights[-1] = -1.0, 1.0
    return mean_curve(selection, metric).linear(weights)


@dataclass(frozen=True)
class Ends:
    """The first and last checkpoints of two groups on the items judged at all of them, in the same order.

    `seeds` is the variance between the seeds of each group at its last checkpoint by metric, from its whole
    curve: two columns alone would leave S − 1 degrees of freedom.
    """

    first: Selection
    second: Selection
    seeds: dict[str, tuple[tuple[SeedVariance, ...], tuple[SeedVariance, ...]]]

    def gap(self, metric: str = "score") -> JointMeans:
        """First group minus second at their last checkpoints: same items, independent training seeds."""
        a, b = (s[metric][:, :, [-1]].mean(axis=0) for s in (self.first, self.second))
        items = joint_means((a - b)[None], self.first.cluster, self.first.stratum)
        own, other = self.seeds[metric]
        return JointMeans(items.mean, items.rows, (*own, *other))

    def change_of_second(self, metric: str = "score") -> JointMeans:
        """Last minus first checkpoint of the second group."""
        part = change(self.second, metric)
        return JointMeans(part.mean, part.rows, self.seeds[metric][1])


def paired_ends(a: Group, b: Group, members: Sequence[Panel]) -> Ends | None:
    """The ends of two groups' curves; None where no item was judged at all of them."""
    if not members:
        return None
    both = Group(
        name="", model="", dataset="", recipe="", variant="", replay=0.0, tokens={},
        runs=dict(enumerate([_ends(a, s) for s in a.seeds] + [_ends(b, s) for s in b.seeds])),
    )  # fmt: skip
    joint = select(both, list(members), (0, 1))
    if joint is None or len(joint.steps) < 2:
        return None
    cut = len(a.seeds)
    seeds = {m: (_last_seeds(a, members, m), _last_seeds(b, members, m)) for m in ("score", "answered")}
    return Ends(_part(joint, slice(None, cut)), _part(joint, slice(cut, None)), seeds)


def _last_seeds(group: Group, members: Sequence[Panel], metric: str) -> tuple[SeedVariance, ...]:
    whole = select(group, list(members))
    if whole is None:
        return ()
    last = np.zeros((len(whole.steps), 1))
    last[-1] = 1.0
    return mean_curve(whole, metric).linear(last).seeds


def _ends(group: Group, seed: int) -> dict[int, int]:
    return {0: group.runs[seed][group.steps[0]], 1: group.runs[seed][group.steps[-1]]}


def _part(selection: Selection, seeds: slice) -> Selection:
    return replace(selection, arrays={k: v[seeds] for k, v in selection.arrays.items()})


def estimate(c: Contrast) -> Estimate:
    """The contrast's value and two-sided limits."""
    return Estimate(c.value, c.low, c.high)


def verdict(p: float, p_against: float, spec: AnalysisSpec, *, positive: bool = True) -> Claim:
    """Verdict from the p-values of a claim and of its opposite, both adjusted for their families.

    Contradicted needs evidence: `p_against`, one-sided and against a difference of the margin, is below
    alpha / 2. Where `p` is two-sided, `positive` says whether the estimate is on the claim's side.
    """
    if positive and p < spec.alpha:
        return "supported"
    if p_against < spec.alpha / 2:
        return "contradicted"
    return "inconclusive"


def told_p(result: Claim, p: float, p_against: float) -> float:
    """The p-value behind a verdict: that of the opposite where the claim is contradicted."""
    return p_against if result == "contradicted" else p


def in_points(effect: Estimate | Contrast) -> str:
    """A score difference with its interval as caveats quote it: `+4.2 points [1.0, 7.4]`."""
    places = 0 if effect.high - effect.low >= 0.06 else 1
    value, low, high = (
        f"{round(100 * v, places) + 0.0:+.{places}f}" for v in (effect.value, effect.low, effect.high)
    )
    text = f"{value} points [{low.lstrip('+')}, {high.lstrip('+')}]"
    return text.replace("-", "\u2212")


def caveats(
    *measured: Selection, groups: Sequence[Group] = (), clusters: int | None = None
) -> tuple[str, ...]:
    """The reservations that hold for a finding on these items and groups."""
    out = []
    if any(len(g.seeds) == 1 for g in groups):
        out.append("one training seed")
    if clusters is not None and clusters < SMALL_N:
        out.append(f"small n ({clusters} independent items)")
    cut = max((float(s["truncated"].mean(axis=(0, 1)).max()) for s in measured), default=0.0)
    if cut > TRUNCATION_WORTH_SAYING:
        out.append(f"up to {cut:.0%} of responses at a checkpoint were cut off at the token limit")
    silent = max((float(s["lost_missing"].mean(axis=(0, 1)).max()) for s in measured), default=0.0)
    if silent > MISSING_WORTH_SAYING:
        out.append(
            f"up to {silent:.0%} of responses at a checkpoint ended without an answer that could be read; "
            "these score 0"
        )
    lost = sum(s.dropped for s in measured)
    if lost:
        out.append(f"{lost} items were left out because a verdict is lacking somewhere")
    if any(g.steps and g.steps[0] != 0 for g in groups):
        out.append("no step 0: the first checkpoint stands as the base")
    return tuple(out)


def not_tested(id: str, claim: str, needs: str, scope: str = "study", figure: str = "") -> Finding:
    """The line of a claim that this study cannot test, or whose premise it does not show."""
    return Finding(id, claim, scope, "", "not tested", needs=needs, figure=figure)


@dataclass(frozen=True)
class Directional:
    """A claim that one contrast is positive, before its family is corrected.

    Where there is an `also`, the same contrast measured another way, both have to say the same.
    """

    scope: str
    contrast: Contrast
    items: int
    seeds: int
    caveats: tuple[str, ...]
    figure: str
    also: Contrast | None = None

    @property
    def both(self) -> tuple[Contrast, ...]:
        """The contrasts that have to agree."""
        return (self.contrast,) if self.also is None else (self.contrast, self.also)


def directional(
    id: str, claim: str, test: str, cases: Sequence[Directional], spec: AnalysisSpec, unit: str = "score"
) -> list[Finding]:
    """Findings of one family of directional claims, Holm-corrected over its scopes."""
    adjusted = holm([max(c.p for c in case.both) for case in cases])
    against = holm([max(c.p_less(-spec.margin) for c in case.both) for case in cases])
    return [
        Finding(
            id=id,
            claim=claim,
            scope=case.scope,
            test=f"{test}{family(len(cases))}",
            verdict=verdict(p, opposite, spec, positive=all(c.value > 0 for c in case.both)),
            effect=estimate(case.contrast),
            unit=unit,
            p=p,
            items=case.items,
            seeds=case.seeds,
            caveats=case.caveats,
            figure=case.figure,
        )
        for case, p, opposite in zip(cases, adjusted, against, strict=True)
    ]


def family(scopes: int) -> str:
    """How a test's name says that it was corrected."""
    return f"; Holm over {scopes} scopes" if scopes > 1 else ""


def contrast_of(joint: JointMeans, spec: AnalysisSpec) -> Contrast:
    """The contrast of a one-column joint mean at the study's alpha."""
    return contrast(joint, spec.alpha)
