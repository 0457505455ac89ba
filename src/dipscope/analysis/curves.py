"""Curves of groups of runs: points with bands, decomposition, and the shape after the test."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dipscope.analysis.decompose import decompose
from dipscope.analysis.panel import Group, Panel, Selection, select
from dipscope.analysis.results import Curve, Estimate, Point, Shape
from dipscope.stats import shape as shapes
from dipscope.stats.bands import JointMeans, band, joint_means, sup_t
from dipscope.stats.distributions import Array
from dipscope.study import AnalysisSpec

_SPLITS = 200
_MIN_PAIRED = 10


@dataclass(frozen=True)
class Measured:
    """A curve with the item arrays and the test behind it; what findings work on."""

    curve: Curve
    group: Group
    panels: tuple[Panel, ...]
    selection: Selection
    means: JointMeans
    test: shapes.Curve | None


def measure(group: Group, members: list[Panel], level: str, name: str, spec: AnalysisSpec) -> Measured | None:
    """One curve on one benchmark or on all benchmarks of a domain; None where no step is complete."""
    selection = select(group, members)
    if selection is None:
        return None
    means = joint_means(selection["score"], selection.cluster, selection.stratum)
    test = None
    if len(selection.steps) >= 2:
        halves = shapes.split_halves(selection["score"].mean(axis=0), selection.stratum, _SPLITS, spec.seed)
        test = shapes.describe(
            means, halves, margin=spec.margin, alpha=spec.alpha, draws=spec.bootstrap, seed=spec.seed
        )
    per_seed = {
        str(seed): tuple(
            float(v) for v in joint_means(selection["score"][[s]], selection.cluster, selection.stratum).mean
        )
        for s, seed in enumerate(group.seeds)
    }
    curve = Curve(
        group=group.name,
        model=group.model,
        dataset=group.dataset,
        recipe=group.recipe,
        seeds=group.seeds,
        level="domain" if level == "domain" else "benchmark",
        name=name,
        domain=members[0].domain,
        probe=members[0].probe,
        items=selection["score"].shape[1],
        samples=selection.samples,
        points=_points(group, members, selection, means, spec),
        losses=decompose(selection),
        shape=None,
        per_seed=per_seed,
    )
    return Measured(curve, group, tuple(members), selection, means, test)


def _points(
    group: Group, members: list[Panel], selection: Selection, means: JointMeans, spec: AnalysisSpec
) -> tuple[Point, ...]:
    low, high = band(means, sup_t(means, spec.alpha, spec.bootstrap, spec.seed))
    names = ("lower", "upper", "truncated", "missing", "unclosed", "tokens", "reasoning_tokens")
    average = {m: joint_means(selection[m], selection.cluster, selection.stratum).mean for m in names}
    completed = _completed(selection)
    points = []
    for t, step in enumerate(selection.steps):
        rows = judged = 0.0
        for panel in members:
            for run in group.runs.values():
                judged += float(panel.values["ok"][run[step]].sum())
                rows += max(
                    float(panel.values["rows"][run[step]].sum()), float(panel.samples * len(panel.cluster))
                )
        points.append(
            Point(
                step=step,
                score=float(means.mean[t]),
                low=float(np.clip(low[t], 0.0, 1.0)),
                high=float(np.clip(high[t], 0.0, 1.0)),
                completed=completed[t],
                lower_bound=float(average["lower"][t]),
                upper_bound=float(average["upper"][t]),
                truncated=float(average["truncated"][t]),
                unclosed=float(average["unclosed"][t]),
                missing=float(average["missing"][t]),
                coverage=judged / rows if rows else 0.0,
                tokens=float(average["tokens"][t]),
                reasoning_tokens=float(average["reasoning_tokens"][t]),
            )
        )
    return tuple(points)


def completed_scores(completed: Array, stopped: Array) -> Array:
    """(items, steps) mean score among the responses that ended by themselves; NaN where none did.

    Args:
        completed: (S, items, steps) score among those responses of one seed.
        stopped: (S, items, steps) how many of them there are, as a share.
    """
    total = np.where(stopped > 0, np.nan_to_num(completed) * stopped, 0.0).sum(axis=0)
    weight = stopped.sum(axis=0)
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)


def completed_means(selection: Selection) -> JointMeans:
    """Joint means per step among the responses that ended by themselves; for the variance between seeds."""
    done = selection["stopped"]
    score = np.where(done > 0, selection["completed"], np.nan)
    return joint_means(score, selection.cluster, selection.stratum)


def _completed(selection: Selection) -> list[float | None]:
    """Score among completed responses per step: ratio of means inside a benchmark, then over benchmarks."""
    out: list[float | None] = []
    done = selection["stopped"].mean(axis=0)
    scores = completed_scores(selection["completed"], selection["stopped"])
    won = np.where(done > 0, np.nan_to_num(scores) * done, 0.0)
    for t in range(len(selection.steps)):
        parts = []
        for name in np.unique(selection.stratum):
            here = selection.stratum == name
            weight = float(done[here, t].sum())
            if weight > 0:
                parts.append(float(won[here, t].sum()) / weight)
        out.append(float(np.mean(parts)) if parts else None)
    return out


def completed_contrasts(selection: Selection) -> JointMeans | None:
    """The contrasts of the dip test among completed responses, or None where too few items are paired.

    Each contrast uses the items that have a completed response at both of its checkpoints, so that it does
    not change with the kind of item that gets cut off.
    """
    score = completed_scores(selection["completed"], selection["stopped"])
    weights = shapes.trough_contrasts(len(selection.steps))
    if weights.shape[1] == 0:
        return None
    plus, minus = weights.argmax(axis=0), weights.argmin(axis=0)
    pairs = score[:, plus] - score[:, minus]
    if np.min(np.sum(~np.isnan(pairs), axis=0)) < _MIN_PAIRED:
        return None
    return with_seeds(
        joint_means(pairs[None], selection.cluster, selection.stratum),
        completed_means(selection).linear(weights),
    )


def with_seeds(joint: JointMeans, source: JointMeans) -> JointMeans:
    """Means of items that were averaged over seeds, with the variance between seeds found in `source`."""
    return JointMeans(joint.mean, joint.rows, source.seeds)


def shaped(curves: list[Measured], spec: AnalysisSpec) -> list[Measured]:
    """Name the shapes of all curves of one level and probe, with Holm's correction over them.

    Each kind of p-value (see `shapes.Evidence`) is a family over all these curves.
    """
    tested = [m for m in curves if m.test is not None]
    found = shapes.evidence([m.test for m in tested if m.test], spec.margin)
    adjusted = {id(m): e for m, e in zip(tested, found, strict=True)}
    return [
        replace(m, curve=replace(m.curve, shape=_shape(m, adjusted[id(m)], spec))) if m.test else m
        for m in curves
    ]


def _shape(measured: Measured, adjusted: shapes.Evidence, spec: AnalysisSpec) -> Shape | None:
    test, steps = measured.test, measured.selection.steps
    if test is None:
        return None
    p_completed = None
    truncated = float(np.max(measured.selection["truncated"]))
    if test.trough is not None and truncated > 0:
        pairs = completed_contrasts(measured.selection)
        if pairs is not None:
            p_completed = shapes.dip_test(pairs, spec.bootstrap, spec.seed).p
    elif test.trough is not None:
        p_completed = test.p_dip
    return Shape(
        label=shapes.classify(test, adjusted, margin=spec.margin, alpha=spec.alpha),
        p_dip=test.p_dip,
        p_dip_holm=adjusted.dip,
        p_dip_completed=p_completed,
        trough_step=None if test.trough is None else steps[test.trough],
        depth=None if test.depth is None else Estimate(*test.depth),
        depth_corrected=test.depth_corrected,
        recovery=None if test.recovery is None else Estimate(*test.recovery),
        net=Estimate(test.net.value, test.net.low, test.net.high),
        small_n=test.small_n,
        trough_range=(
            None
            if test.trough_low is None or test.trough_high is None
            else (steps[test.trough_low], steps[test.trough_high])
        ),
        p_hump=test.p_hump,
        p_returns_holm=adjusted.returns,
        p_against_holm=adjusted.against,
    )
