"""What all findings share: the context they read, verdict rules, caveats, and families of tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dipscope.analysis.curves import Measured
from dipscope.analysis.panel import Group, Panel, Selection, select
from dipscope.analysis.results import BENIGN, Claim, Estimate, Finding
from dipscope.stats.bands import JointMeans, joint_means
from dipscope.stats.paired import Contrast, contrast, holm
from dipscope.stats.shape import SMALL_N
from dipscope.study import AnalysisSpec

OOD = ("ood_reasoning", "ood_general")
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
        order = ("in_domain", *OOD, "safety")
        present = {p.domain for (kind, _), p in self.panels.items() if kind == "generate"}
        return [d for d in order if d in present] + sorted(present - set(order))


def is_benign(panel: Panel) -> bool:
    """Whether a safety benchmark asks harmless questions (told by its name)."""
    return panel.domain == "safety" and any(w in panel.benchmark.lower() for w in BENIGN)


def harmful(ctx: Context) -> list[Panel]:
    """The safety benchmarks whose score is the share of harmful requests refused."""
    return [p for p in ctx.members("safety") if not is_benign(p)]


def change(selection: Selection, metric: str = "score", first: int = 0, last: int = -1) -> JointMeans:
    """Paired change of a metric between two points of a selection, one column."""
    x = selection[metric]
    return joint_means(x[:, :, [last]] - x[:, :, [first]], selection.cluster, selection.stratum)


def between(a: Selection, b: Selection) -> JointMeans:
    """Difference a − b of two columns of joint items: same items, independent training seeds."""
    items = joint_means((a["score"].mean(axis=0) - b["score"].mean(axis=0))[None], a.cluster, a.stratum)
    blocks = []
    for side, sign in ((a, 1.0), (b, -1.0)):
        blocks += [sign * block for block in joint_means(side["score"], side.cluster, side.stratum).seeds]
    return JointMeans(items.mean, items.rows, tuple(blocks))


def paired_last(a: Group, b: Group, members: Sequence[Panel]) -> tuple[Selection, Selection] | None:
    """First and last checkpoint of two groups on the items judged at all of them, in the same order."""
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
    return _part(joint, slice(None, cut)), _part(joint, slice(cut, None))


def _ends(group: Group, seed: int) -> dict[int, int]:
    return {0: group.runs[seed][group.steps[0]], 1: group.runs[seed][group.steps[-1]]}


def _part(selection: Selection, seeds: slice) -> Selection:
    return replace(selection, arrays={k: v[seeds] for k, v in selection.arrays.items()})


def estimate(c: Contrast) -> Estimate:
    """The contrast's value and two-sided limits."""
    return Estimate(c.value, c.low, c.high)


def verdict(c: Contrast, p: float, p_against: float, spec: AnalysisSpec) -> Claim:
    """Verdict on 'the contrast is positive' from its two-sided p-value.

    Contradicted needs evidence: `p_against`, that the contrast is below −margin, is below alpha / 2. Both
    are adjusted for the family.
    """
    if c.value > 0 and p < spec.alpha:
        return "supported"
    if p_against < spec.alpha / 2:
        return "contradicted"
    return "inconclusive"


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
        out.append(f"up to {cut:.0%} of responses were cut off at the token limit")
    silent = max((float(s["missing"].mean(axis=(0, 1)).max()) for s in measured), default=0.0)
    if silent > MISSING_WORTH_SAYING:
        out.append(
            f"up to {silent:.0%} of responses gave no answer that could be judged, which counts as wrong"
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
    """A claim that one contrast is positive, before its family is corrected."""

    scope: str
    contrast: Contrast
    items: int
    seeds: int
    caveats: tuple[str, ...]
    figure: str


def directional(
    id: str, claim: str, test: str, cases: Sequence[Directional], spec: AnalysisSpec, unit: str = "score"
) -> list[Finding]:
    """Findings of one family of directional claims, Holm-corrected over its scopes."""
    adjusted = holm([case.contrast.p for case in cases])
    against = holm([case.contrast.p_less(-spec.margin) for case in cases])
    return [
        Finding(
            id=id,
            claim=claim,
            scope=case.scope,
            test=f"{test}{family(len(cases))}",
            verdict=verdict(case.contrast, p, opposite, spec),
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
