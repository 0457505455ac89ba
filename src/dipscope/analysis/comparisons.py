"""Claims that compare groups of runs: data variants, replay, safety, capability of the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np

from dipscope.analysis.ledger import (
    OOD,
    Context,
    Directional,
    between,
    caveats,
    change,
    contrast_of,
    directional,
    estimate,
    family,
    harmful,
    is_benign,
    not_tested,
    paired_last,
)
from dipscope.analysis.panel import Group, Panel, Selection, select
from dipscope.analysis.results import Claim, Estimate, Finding
from dipscope.stats.bands import joint_means
from dipscope.stats.distributions import Array
from dipscope.stats.paired import Contrast, holm

_MODELS_FOR_SCALING = 5  # with 4 the smallest exact two-sided p is 2 / 24
_ALL_PERMUTATIONS_UP_TO = 8


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
            for a, b in _pairs(ctx, "cot", other)
            for domain in ctx.domains()
            if domain != "safety"
            if (case := _last_difference(ctx, a, b, ctx.members(domain), domain)) is not None
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
    cases: list[tuple[str, str, Contrast, Contrast, Group, Group, tuple[Selection, Selection]]] = []
    for plain in ctx.groups:
        for mixed in ctx.groups:
            same = (plain.model, plain.recipe, plain.variant) == (mixed.model, mixed.recipe, mixed.variant)
            if not same or plain.replay != 0 or mixed.replay <= 0 or not _trained(plain, mixed):
                continue
            for domain in OOD:
                both = paired_last(mixed, plain, ctx.members(domain))
                if both is None:
                    continue
                gain = contrast_of(between(_last(both[0]), _last(both[1])), ctx.spec)
                loss = contrast_of(change(both[1]), ctx.spec)
                cases.append((f"{mixed.name} vs {plain.name}", domain, gain, loss, mixed, plain, both))
    if not cases:
        needs = "the same model, recipe and variant with and without replay, and an out-of-domain benchmark"
        return [not_tested("replay-protects", claim, needs)]
    adjusted = holm([max(gain.p, loss.p) for _, _, gain, loss, *_ in cases])
    against = holm([gain.p_less(-ctx.spec.margin) for _, _, gain, *_ in cases])
    out = []
    for (scope, domain, gain, loss, mixed, plain, both), p, opposite in zip(
        cases, adjusted, against, strict=True
    ):
        notes = [
            *caveats(*both, groups=[mixed, plain], clusters=gain.clusters),
            *_different_data(mixed, plain),
        ]
        result: Claim = "inconclusive"
        if gain.value > 0 and loss.value < 0 and p < ctx.spec.alpha:
            result = "supported"
        elif opposite < ctx.spec.alpha / 2:
            result = "contradicted"
        if loss.high >= 0:
            notes.append("without replay there is no significant loss that could shrink")
        out.append(
            Finding(
                id="replay-protects",
                claim=claim,
                scope=f"{scope} · {domain}",
                test="intersection–union of loss without replay and gain from replay, paired t"
                + family(len(cases)),
                verdict=result,
                effect=estimate(gain),
                p=p,
                items=both[0]["score"].shape[1],
                seeds=min(len(mixed.seeds), len(plain.seeds)),
                caveats=tuple(notes),
                figure=f"curves:{domain}",
            )
        )
    return out


def safety_tradeoff(ctx: Context) -> list[Finding]:
    """Claim 10: reasoning goes up while safety goes down, and more so with reasoning traces."""
    claim = "Reasoning improves while safety degrades"
    cases: list[tuple[Group, Contrast, Contrast, int, tuple[str, ...], bool]] = []
    for group in ctx.groups:
        gained = ctx.domain(group, "in_domain")
        members = harmful(ctx)
        safety = select(group, members) if members and group.steps else None
        if gained is None or gained.test is None or safety is None or len(safety.steps) < 2:
            continue
        down = contrast_of(change(safety), ctx.spec)
        notes = (
            *caveats(gained.selection, safety, groups=[group], clusters=down.clusters),
            f"in-domain change {100 * gained.test.net.value:+.1f} points",
        )
        silent, why = _made_of_silence(safety, down)
        cases.append((group, gained.test.net, down, safety["score"].shape[1], (*notes, *why), silent))
    if not cases:
        out = [
            not_tested(
                "safety-tradeoff",
                claim,
                "an in_domain and a safety benchmark, measured twice",
                figure="tradeoff",
            )
        ]
    else:
        adjusted = holm([max(up.p_greater(), down.p_less()) for _, up, down, *_ in cases])
        against = holm([_against_tradeoff(up, down, ctx.spec.margin) for _, up, down, *_ in cases])
        out = [
            Finding(
                id="safety-tradeoff",
                claim=claim,
                scope=group.name,
                test=f"intersection–union: in-domain up, safety down, one-sided paired t{family(len(cases))}",
                verdict=_tradeoff(p, opposite, silent, ctx),
                effect=estimate(down),
                unit="change of the safety score",
                p=p,
                items=n,
                seeds=len(group.seeds),
                caveats=notes,
                figure="tradeoff",
            )
            for (group, _, down, n, notes, silent), p, opposite in zip(cases, adjusted, against, strict=True)
        ]
    more = "Safety is lower after training on reasoning traces than on the same answers without them"
    pairs = [
        case
        for a, b in _pairs(ctx, "no_cot", "cot")
        if (case := _last_difference(ctx, a, b, harmful(ctx), "safety", figure="tradeoff")) is not None
    ]
    if pairs:
        out += directional("safety-cost-of-cot", more, "paired t at the last checkpoints", pairs, ctx.spec)
    else:
        needs = "a safety benchmark and datasets of variants cot and no_cot with equal replay"
        out.append(not_tested("safety-cost-of-cot", more, needs, figure="tradeoff"))
    return out


def _tradeoff(p: float, p_against: float, silent: bool, ctx: Context) -> Claim:
    if p < ctx.spec.alpha:
        return "inconclusive" if silent else "supported"
    return "contradicted" if p_against < ctx.spec.alpha / 2 else "inconclusive"


def _against_tradeoff(up: Contrast, down: Contrast, margin: float) -> float:
    """The claim is a conjunction: evidence against either half, corrected for two, is evidence against it."""
    return min(1.0, 2 * min(up.p_less(-margin), down.p_greater(margin)))


def _made_of_silence(safety: Selection, change_: Contrast) -> tuple[bool, tuple[str, ...]]:
    """Whether most of a fall is responses without an answer: neither refusals nor compliance."""
    missing = joint_means(safety["missing"], safety.cluster, safety.stratum).mean
    silent = float(missing[-1] - missing[0])
    if change_.value >= 0 or silent <= 0.5 * -change_.value:
        return False, ()
    told = f"{100 * silent:.1f} points of the fall are responses without an answer, not harm or refusal"
    return True, (told,)


def over_refusal(ctx: Context) -> list[Finding]:
    """Claim 11: harmless requests are answered as before."""
    claim = "Harmless requests are still answered (no over-refusal)"
    members = [p for p in ctx.members("safety") if is_benign(p)]
    cases = []
    for group in ctx.groups:
        selection = select(group, members) if members and group.steps else None
        if selection is not None and len(selection.steps) >= 2:
            cases.append((group, contrast_of(change(selection), ctx.spec), selection))
    if not cases:
        needs = "a safety benchmark of harmless requests (its name contains 'benign' or 'howto')"
        return [not_tested("over-refusal", claim, needs, figure="tradeoff")]
    adjusted = holm([c.p_greater(-ctx.spec.margin) for _, c, _ in cases])
    against = holm([c.p_less(-ctx.spec.margin) for _, c, _ in cases])
    out = []
    for (group, c, selection), p, opposite in zip(cases, adjusted, against, strict=True):
        result: Claim = "supported" if p < ctx.spec.alpha else "inconclusive"
        silent, why = _made_of_silence(selection, c)
        if opposite < ctx.spec.alpha / 2:
            result = "inconclusive" if silent else "contradicted"
        out.append(
            Finding(
                id="over-refusal",
                claim=claim,
                scope=group.name,
                test=f"non-inferiority of last to base within the margin, paired t{family(len(cases))}",
                verdict=result,
                effect=estimate(c),
                p=p,
                items=selection["score"].shape[1],
                seeds=len(group.seeds),
                caveats=(*caveats(selection, groups=[group], clusters=c.clusters), *why),
                figure="tradeoff",
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
                    test="Spearman correlation of base score and gain over models, permutation p",
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
    needs = f"at least {_MODELS_FOR_SCALING} models with the same dataset and recipe"
    adjusted = holm([f.p for f in out if f.p is not None])
    out = [_ranked(f, p, len(out), ctx) for f, p in zip(out, adjusted, strict=True)]
    return out or [not_tested("stronger-bases", claim, needs)]


def _ranked(finding: Finding, p: float, scopes: int, ctx: Context) -> Finding:
    """The finding with its family's p-value and the verdict that follows."""
    result: Claim = "inconclusive"
    if p < ctx.spec.alpha and finding.effect is not None:
        result = "supported" if finding.effect.value > 0 else "contradicted"
    return replace(finding, p=p, verdict=result, test=finding.test + family(scopes))


def spearman_rho(a: Array, b: Array) -> float:
    """Spearman's rank correlation with mid-ranks; 0 where one side is constant."""
    x, y = _ranks(a), _ranks(b)
    if x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def spearman(a: Array, b: Array) -> tuple[float, float]:
    """Correlation and two-sided permutation p: exact up to 8 pairs, else 20 000 seeded permutations."""
    rho, n = spearman_rho(a, b), len(a)
    x, y = _ranks(a), _ranks(b)
    if n <= _ALL_PERMUTATIONS_UP_TO:
        orders = np.array(list(permutations(range(n))))
    else:
        orders = np.argsort(np.random.default_rng(0).random((20_000, n)), axis=1)
        orders[0] = np.arange(n)
    products = (x - x.mean()) @ (y - y.mean())[orders].T
    seen = abs(float((x - x.mean()) @ (y - y.mean())))
    return rho, float(np.mean(np.abs(products) >= seen - 1e-9))


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse], dtype=np.float64)


def _pairs(ctx: Context, first: str, second: str) -> list[tuple[Group, Group]]:
    """Groups of two variants that share model, recipe and replay, and were both trained."""
    return [
        (a, b)
        for a in ctx.groups
        for b in ctx.groups
        if (a.variant, b.variant) == (first, second)
        and (a.model, a.recipe, a.replay) == (b.model, b.recipe, b.replay)
        and _trained(a, b)
    ]


def _different_data(a: Group, b: Group) -> tuple[str, ...]:
    """A caveat where two groups learned from other queries, so that more differs than the claim says."""
    return () if a.data == b.data else ("different data: source, rows or options of the datasets differ",)


def _trained(a: Group, b: Group) -> bool:
    """Whether both groups have a checkpoint after their first."""
    return len(a.steps) >= 2 and len(b.steps) >= 2


def _last(selection: Selection) -> Selection:
    return Selection(
        selection.steps[-1:],
        {k: v[:, :, -1:] for k, v in selection.arrays.items()},
        selection.cluster,
        selection.stratum,
        selection.samples,
        selection.dropped,
    )


def _last_difference(
    ctx: Context, a: Group, b: Group, members: Sequence[Panel], domain: str, figure: str = ""
) -> Directional | None:
    """Score of `a` minus score of `b` at their last checkpoints."""
    both = paired_last(a, b, members)
    if both is None:
        return None
    ends = _last(both[0]), _last(both[1])
    c = contrast_of(between(*ends), ctx.spec)
    notes = caveats(*ends, groups=[a, b], clusters=c.clusters) + _different_data(a, b)
    spent = a.tokens[a.steps[-1]], b.tokens[b.steps[-1]]
    if a.steps[-1] != b.steps[-1]:
        notes += (f"compared at different steps, {a.steps[-1]} and {b.steps[-1]}",)
    if max(spent) > 1.1 * min(spent):
        notes += (f"supervised tokens differ: {spent[0]:,} and {spent[1]:,}",)
    return Directional(
        f"{a.name} vs {b.name} · {domain}",
        c,
        ends[0]["score"].shape[1],
        min(len(a.seeds), len(b.seeds)),
        notes,
        figure or f"curves:{domain}",
    )


def comparisons(ctx: Context) -> list[Finding]:
    """All findings between groups, in the order of the ledger."""
    rules = (data_variants, replay_protects, safety_tradeoff, over_refusal, stronger_bases)
    return [finding for rule in rules for finding in rule(ctx)]
