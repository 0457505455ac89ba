"""Claims about safety: what reasoning costs in refusals, and whether harmless requests are still answered."""

from __future__ import annotations

from dipscope.analysis.comparisons import last_difference, pairs
from dipscope.analysis.ledger import (
    Context,
    caveats,
    change,
    contrast_of,
    directional,
    estimate,
    family,
    in_points,
    not_tested,
    told_p,
    verdict,
)
from dipscope.analysis.panel import OVER_REFUSAL, Group, Selection, select
from dipscope.analysis.results import Finding
from dipscope.stats.paired import Contrast, holm


def safety_tradeoff(ctx: Context) -> list[Finding]:
    """Claim 10: reasoning goes up while safety goes down.

    The score of a harmful request is 1 for a refusal. A missing answer scores 0 but is no compliance, so the
    fall has to show also where missing answers count as refusals.
    """
    claim = "Reasoning improves while safety degrades"
    cases: list[tuple[Group, Contrast, Contrast, Contrast, Selection, tuple[str, ...]]] = []
    for group in ctx.groups:
        gained, safety = ctx.domain(group, "in_domain"), _measured(ctx, group, "safety")
        if gained is None or gained.test is None or safety is None:
            continue
        up, down, complied = gained.test.net, *_changes(ctx, safety)
        notes = (
            *caveats(gained.selection, safety, groups=[group], clusters=down.clusters),
            f"in-domain change {in_points(up)}",
            *_silence(down, complied, "refused nor complied"),
        )
        cases.append((group, up, down, complied, safety, notes))
    if not cases:
        needs = "an in_domain benchmark and a safety benchmark of harmful requests, measured twice"
        return [not_tested("safety-tradeoff", claim, needs, figure="tradeoff")]
    adjusted = holm(
        [max(up.p_greater(), down.p_less(), complied.p_less()) for _, up, down, complied, *_ in cases]
    )
    against = holm([_against_tradeoff(up, down, ctx.spec.margin) for _, up, down, *_ in cases])
    return [
        Finding(
            id="safety-tradeoff",
            claim=claim,
            scope=group.name,
            test="intersection–union: in-domain up, safety down, and down also with missing answers counted "
            f"as refusals; one-sided paired t{family(len(cases))}",
            verdict=result,
            effect=estimate(down),
            unit="change in the share of harmful requests refused, score",
            p=told_p(result, p, opposite),
            items=safety["score"].shape[1],
            seeds=len(group.seeds),
            caveats=notes,
            figure="tradeoff",
        )
        for (group, _, down, _, safety, notes), p, opposite in zip(cases, adjusted, against, strict=True)
        for result in [verdict(p, opposite, ctx.spec)]
    ]


def _measured(ctx: Context, group: Group, domain: str) -> Selection | None:
    members = ctx.members(domain)
    found = select(group, members) if members and group.steps else None
    return None if found is None or len(found.steps) < 2 else found


def _changes(ctx: Context, selection: Selection) -> tuple[Contrast, Contrast]:
    """Last − base of the score, and of the score with missing answers counted as right."""
    return contrast_of(change(selection), ctx.spec), contrast_of(change(selection, "answered"), ctx.spec)


def _against_tradeoff(up: Contrast, down: Contrast, margin: float) -> float:
    """The claim is a conjunction: evidence against either half, corrected for two, is evidence against it."""
    return min(1.0, 2 * min(up.p_less(-margin), down.p_greater(margin)))


def _silence(whole: Contrast, answered: Contrast, neither: str) -> tuple[str, ...]:
    """How much of a fall is missing answers, where they are a tenth of it or more."""
    silent = answered.value - whole.value
    if whole.value >= 0 or silent < 0.1 * -whole.value:
        return ()
    return (
        f"responses without an answer, which neither {neither}, cost {100 * silent:.1f} points; "
        f"counted as right they leave {in_points(answered)}",
    )


def cost_of_reasoning(ctx: Context) -> list[Finding]:
    """Claim 10, second half: safety is lower after reasoning traces than after the same answers alone."""
    claim = "Safety is lower after training on reasoning traces than on the same answers without them"
    members = ctx.members("safety")
    cases = [
        case
        for a, b in pairs(ctx, "no_cot", "cot")
        if (case := last_difference(ctx, a, b, members, "safety", answered=True)) is not None
    ]
    if not cases:
        needs = "a safety benchmark of harmful requests and datasets of variants cot and no_cot, equal replay"
        return [not_tested("safety-cost-of-cot", claim, needs, figure="tradeoff")]
    test = "paired t at the last checkpoints, also with missing answers counted as refusals"
    return directional("safety-cost-of-cot", claim, test, cases, ctx.spec)


def over_refusal(ctx: Context) -> list[Finding]:
    """Claim 11: harmless requests are still answered.

    A missing answer is no refusal, so over-refusal has to show also where missing answers count as right.
    """
    claim = "Harmless requests are still answered (no over-refusal)"
    cases = []
    for group in ctx.groups:
        selection = _measured(ctx, group, OVER_REFUSAL)
        if selection is not None:
            cases.append((group, *_changes(ctx, selection), selection))
    if not cases:
        needs = "a safety benchmark of harmless requests (its name contains 'benign' or 'howto')"
        return [not_tested("over-refusal", claim, needs, figure="tradeoff")]
    margin = ctx.spec.margin
    adjusted = holm([whole.p_greater(-margin) for _, whole, *_ in cases])
    against = holm([max(c.p_less(-margin) for c in (whole, answered)) for _, whole, answered, _ in cases])
    return [
        Finding(
            id="over-refusal",
            claim=claim,
            scope=group.name,
            test=f"non-inferiority of last to base within the margin, paired t{family(len(cases))}",
            verdict=result,
            effect=estimate(whole),
            p=told_p(result, p, opposite),
            items=selection["score"].shape[1],
            seeds=len(group.seeds),
            caveats=(
                *caveats(selection, groups=[group], clusters=whole.clusters),
                *_silence(whole, answered, "answered nor refused"),
            ),
            figure=f"curves:{OVER_REFUSAL}",
        )
        for (group, whole, answered, selection), p, opposite in zip(cases, adjusted, against, strict=True)
        for result in [verdict(p, opposite, ctx.spec)]
    ]
