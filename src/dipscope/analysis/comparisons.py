"""Claims that compare groups of runs: data variants, replay, capability of the base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dipscope.analysis.ledger import (
    OOD,
    SAFETY,
    Context,
    Directional,
    Ends,
    caveats,
    contrast_of,
    directional,
    estimate,
    family,
    not_tested,
    paired_ends,
    verdict,
)
from dipscope.analysis.panel import Group, Panel
from dipscope.analysis.results import Claim, Estimate, Finding
from dipscope.stats.paired import Contrast, holm
from dipscope.stats.ranks import spearman, spearman_rho

_MODELS_FOR_SCALING = 5


def data_variants(ctx: Context) -> list[Finding]:
    """Claims 7 and 8: reasoning traces beat the same answers without them, and damaged traces."""
    out = []
    for other, label in (
        ("no_cot", "the same answers without reasoning"),
        ("shuffled_steps", "the same reasoning with shuffled steps"),
        ("wrong_answer", "reasoning to wrong answers"),
    ):
        id = f"cot-beats-{other.replace('_', '-')}"
        claim = f"Training on reasoning traces scores higher than on {label}"
        cases = [
            case
            for a, b in pairs(ctx, "cot", other)
            for domain in ctx.domains()
            if domain not in SAFETY
            if (case := last_difference(ctx, a, b, ctx.members(domain), domain)) is not None
        ]
        if cases:
            out += directional(id, claim, "paired t at the last checkpoints", cases, ctx.spec)
        else:
            needs = f"datasets of variants cot and {other} with equal replay, same model and recipe"
            out.append(not_tested(id, claim, needs))
    return out


def replay_protects(ctx: Context) -> list[Finding]:
    """Claim 9: mixing in replay removes or shrinks the out-of-domain loss."""
    claim = "Replay removes or shrinks the out-of-domain loss"
    cases: list[tuple[str, Group, Group, Ends, Contrast, Contrast]] = []
    for mixed, plain in _comparable(ctx, _adds_replay):
        for domain in OOD:
            ends = paired_ends(mixed, plain, ctx.members(domain))
            if ends is not None:
                gain, loss = (contrast_of(j, ctx.spec) for j in (ends.gap(), ends.change_of_second()))
                cases.append((domain, mixed, plain, ends, gain, loss))
    if not cases:
        needs = "the same model, recipe and variant with and without replay, and an out-of-domain benchmark"
        return [not_tested("replay-protects", claim, needs)]
    adjusted = holm([max(gain.p, loss.p) for *_, gain, loss in cases])
    against = holm([gain.p_less(-ctx.spec.margin) for *_, gain, _ in cases])
    out = []
    for (domain, mixed, plain, ends, gain, loss), p, p_against in zip(cases, adjusted, against, strict=True):
        notes = list(unequal(mixed, plain))
        if loss.high >= 0:
            notes.append("without replay there is no significant loss that could shrink")
        out.append(
            Finding(
                id="replay-protects",
                claim=claim,
                scope=f"{mixed.name} vs {plain.name} · {domain}",
                test="intersection–union of loss without replay and gain from replay, paired t"
                + family(len(cases)),
                verdict=verdict(p, p_against, ctx.spec, positive=gain.value > 0 and loss.value < 0),
                effect=estimate(gain),
                unit="with − without replay at the last checkpoints, score",
                p=p,
                items=ends.first["score"].shape[1],
                seeds=min(len(mixed.seeds), len(plain.seeds)),
                caveats=(
                    *caveats(ends.first, ends.second, groups=[mixed, plain], clusters=gain.clusters),
                    *notes,
                ),
                figure=f"curves:{domain}",
            )
        )
    return out


def stronger_bases(ctx: Context) -> list[Finding]:
    """Claim 12: the better the base, the more it gains out of domain."""
    claim = "Stronger base models gain more out of domain"
    out = []
    for dataset, recipe in sorted({(g.dataset, g.recipe) for g in ctx.groups}):
        for domain in OOD:
            rows = []
            for group in ctx.groups:
                own = ctx.domain(group, domain)
                base = ctx.domain(group, "in_domain") or own
                if (group.dataset, group.recipe) != (dataset, recipe) or own is None or base is None:
                    continue
                if own.test is not None:
                    rows.append((float(base.means.mean[0]), own.test.net, own.curve.items, group))
            if len({group.model for *_, group in rows}) < _MODELS_FOR_SCALING:
                continue
            strength = np.array([r[0] for r in rows])
            gains = [r[1] for r in rows]
            value = np.array([c.value for c in gains])
            rho, p = spearman(strength, value)
            noise = np.random.default_rng(ctx.spec.seed).standard_normal((ctx.spec.bootstrap, len(rows)))
            around = [spearman_rho(strength, row) for row in value + noise * [c.se for c in gains]]
            low, high = np.quantile(around, [ctx.spec.alpha / 2, 1 - ctx.spec.alpha / 2])
            out.append(
                Finding(
                    id="stronger-bases",
                    claim=claim,
                    scope=f"{dataset}/{recipe} · {domain}",
                    test="Spearman correlation of base score and gain over models, exact permutation",
                    verdict="inconclusive",
                    effect=Estimate(rho, float(low), float(high)),
                    unit="rank correlation",
                    p=p,
                    items=min(r[2] for r in rows),
                    seeds=min(len(r[3].seeds) for r in rows),
                    caveats=(
                        f"{len(rows)} models; the interval covers items and seeds, not the choice of models",
                    ),
                    figure=f"curves:{domain}",
                )
            )
    needs = (
        f"at least {_MODELS_FOR_SCALING} models with the same dataset and recipe (with 4 the smallest exact "
        "two-sided p is 2/24)"
    )
    adjusted = holm([f.p for f in out if f.p is not None])
    out = [_ranked(f, p, len(out), ctx) for f, p in zip(out, adjusted, strict=True)]
    return out or [not_tested("stronger-bases", claim, needs)]


def _ranked(finding: Finding, p: float, scopes: int, ctx: Context) -> Finding:
    """The finding with its family's p-value and the verdict that follows."""
    result: Claim = "inconclusive"
    if p < ctx.spec.alpha and finding.effect is not None:
        result = "supported" if finding.effect.value > 0 else "contradicted"
    return replace(finding, p=p, verdict=result, test=finding.test + family(scopes))


def pairs(ctx: Context, first: str, second: str) -> list[tuple[Group, Group]]:
    """Groups of two variants that share model, recipe and replay, and were both trained."""
    return _comparable(ctx, lambda a, b: (a.variant, b.variant) == (first, second) and a.replay == b.replay)


def _adds_replay(mixed: Group, plain: Group) -> bool:
    return mixed.variant == plain.variant and mixed.replay > 0 == plain.replay


def _comparable(ctx: Context, differ: Callable[[Group, Group], bool]) -> list[tuple[Group, Group]]:
    """Pairs of trained groups of one model and recipe that differ as asked.

    A group is paired with those that learned from the same data; only where there is none, with the others,
    and `unequal` then says so.
    """
    found = []
    for a in ctx.groups:
        others = [
            b
            for b in ctx.groups
            if (a.model, a.recipe) == (b.model, b.recipe)
            and differ(a, b)
            and min(len(a.steps), len(b.steps)) >= 2
        ]
        found += [(a, b) for b in [b for b in others if _same_data(a, b)] or others]
    return found


def _same_data(a: Group, b: Group) -> bool:
    return a.data == b.data != ""


def unequal(a: Group, b: Group) -> tuple[str, ...]:
    """What differs between two compared groups besides what is compared."""
    out = []
    if not (a.data and b.data):
        out.append("whether both groups learned from the same queries is not known")
    elif not _same_data(a, b):
        out.append("different data: the two groups did not learn from the same queries")
    if a.steps[-1] != b.steps[-1]:
        out.append(f"compared at different steps, {a.steps[-1]} and {b.steps[-1]}")
    spent = a.tokens[a.steps[-1]], b.tokens[b.steps[-1]]
    if max(spent) > 1.1 * min(spent):
        out.append(f"supervised tokens differ: {spent[0]:,} and {spent[1]:,}")
    return tuple(out)


def last_difference(
    ctx: Context, a: Group, b: Group, members: Sequence[Panel], domain: str, *, answered: bool = False
) -> Directional | None:
    """Score of `a` minus score of `b` at their last checkpoints.

    With `answered` the difference has to show also when missing answers count as right.
    """
    ends = paired_ends(a, b, members)
    if ends is None:
        return None
    c = contrast_of(ends.gap(), ctx.spec)
    shown = replace(ends.first, arrays={k: v[:, :, -1:] for k, v in ends.first.arrays.items()})
    other = replace(ends.second, arrays={k: v[:, :, -1:] for k, v in ends.second.arrays.items()})
    return Directional(
        f"{a.name} vs {b.name} · {domain}",
        c,
        ends.first["score"].shape[1],
        min(len(a.seeds), len(b.seeds)),
        (*caveats(shown, other, groups=[a, b], clusters=c.clusters), *unequal(a, b)),
        "tradeoff" if answered else f"curves:{domain}",
        contrast_of(ends.gap("answered"), ctx.spec) if answered else None,
    )
