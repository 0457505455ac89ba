"""Where the change from the base comes from: truncated, missing, or wrong answers."""

from __future__ import annotations

from dipscope.analysis.panel import Selection
from dipscope.analysis.results import Loss
from dipscope.stats.bands import joint_means


def decompose(selection: Selection) -> tuple[Loss, ...]:
    """Split the change of the mean score from the first step into three parts that add up to it.

    Every judged response loses 1 − score. The loss is booked under truncation when the response hit the
    token limit, else under missing when no answer was found, else under wrong. With the mean losses
    L_t = (truncation, missing, wrong) the score is 1 − ΣL_t, so the change from the base is
    −Σ(L_t − L_0), and each part is −(L_t − L_0) of its kind: negative when that failure became more common.
    Means are over items, equal weight per benchmark, and over seeds.
    """
    parts = {
        kind: joint_means(selection[f"lost_{kind}"], selection.cluster, selection.stratum).mean
        for kind in ("truncation", "missing", "wrong")
    }
    out = []
    for t, step in enumerate(selection.steps):
        delta = {kind: float(mean[0] - mean[t]) for kind, mean in parts.items()}
        out.append(Loss(step, sum(delta.values()), delta["truncation"], delta["missing"], delta["wrong"]))
    return tuple(out)
