"""Records as arrays: one panel per benchmark and probe (checkpoints × items), and the groups of runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from dipscope.errors import DipscopeError
from dipscope.stats.distributions import Array, Codes

CHECKPOINT_COLUMNS = (
    "run", "group", "model", "dataset", "recipe", "seed", "step", "tokens", "variant", "replay", "checkpoint",
)  # fmt: skip
MIN_COVERAGE = 0.5
# The safety benchmarks whose requests are harmless, told by their names, are a domain of their own.
BENIGN = ("benign", "howto")
OVER_REFUSAL = "over_refusal"

# Item means over the samples that were judged; `ok` and `rows` count samples.
METRICS = (
    "score", "lower", "upper", "answered", "completed", "stopped", "truncated", "missing", "unclosed",
    "tokens", "reasoning_tokens", "log_tokens", "lost_truncation", "lost_missing", "lost_wrong", "ok", "rows",
)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """All item means of one benchmark and probe.

    Attributes:
        items: their names, in order.
        values: metric → (checkpoints, items); NaN where an item was not judged at a checkpoint.
        cluster: (items,) integers.
        samples: most samples an item has.
    """

    benchmark: str
    domain: str
    probe: str
    items: tuple[str, ...]
    values: dict[str, Array]
    cluster: Codes
    samples: int

    def usable(self, index: int) -> bool:
        """Whether enough items were judged at a checkpoint for it to stand on a curve."""
        return bool(np.mean(~np.isnan(self.values["score"][index])) >= MIN_COVERAGE)


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed: for each seed the checkpoint index at every step."""

    name: str
    model: str
    dataset: str
    recipe: str
    variant: str
    replay: float
    runs: dict[int, dict[int, int]]
    tokens: dict[int, int]
    data: str = ""  # the queries learned from; equal where only variant or replay differ

    @property
    def seeds(self) -> tuple[int, ...]:
        """The training seeds, in order."""
        return tuple(sorted(self.runs))

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that every seed reached."""
        return tuple(sorted(set.intersection(*(set(run) for run in self.runs.values()))))


@dataclass(frozen=True)
class Selection:
    """The items of one curve: steps, and for every metric an array (seeds, items, steps)."""

    steps: tuple[int, ...]
    arrays: dict[str, Array]
    cluster: Codes
    stratum: Codes
    samples: int
    dropped: int

    def __getitem__(self, metric: str) -> Array:
        return self.arrays[metric]


def groups(checkpoints: pl.DataFrame, index: dict[str, int]) -> list[Group]:
    """The groups of a checkpoint table, by name.

    Raises:
        DipscopeError: a column is missing.
    """
    lacking = [c for c in CHECKPOINT_COLUMNS if c not in checkpoints.columns]
    if lacking:
        raise DipscopeError(f"columns are missing: {', '.join(lacking)}", "checkpoint table", "Add them.")
    found = []
    for (name,), rows in checkpoints.sort("group", "seed", "step").group_by("group", maintain_order=True):
        first = rows.row(0, named=True)
        runs: dict[int, dict[int, int]] = {}
        tokens: dict[int, int] = {}
        for row in rows.iter_rows(named=True):
            if row["checkpoint"] in index:
                runs.setdefault(row["seed"], {})[row["step"]] = index[row["checkpoint"]]
                tokens.setdefault(row["step"], row["tokens"] or 0)
        if runs:
            found.append(
                Group(
                    str(name), first["model"], first["dataset"], first["recipe"],
                    first["variant"] or "", first["replay"] or 0.0, runs, tokens,
                    first.get("data") or "",
                )
            )  # fmt: skip
    return found


def panels(records: pl.DataFrame, index: dict[str, int]) -> dict[tuple[str, str], Panel]:
    """Panels by (probe, benchmark), from records of the checkpoints in `index`.

    A missing answer scores 0; a record with verdict `error` is no observation and only lowers coverage. A
    lost point is put down to truncation when the response hit the token limit, else to a missing answer
    when there was none, else to a wrong answer, so that the three losses and the score add up to 1.
    `answered` is the score with every missing answer counted as right: what it has lost, an answer has cost.
    """
    judged = pl.col("verdict") != "error"
    truncated = (pl.col("finish") == "length").fill_null(False)
    missing = pl.col("verdict") == "missing"
    score = (
        pl.when(missing)
        .then(0.0)
        .otherwise(pl.coalesce(pl.col("score"), (pl.col("verdict") == "correct").cast(pl.Float64)))
    )
    stop = (pl.col("finish") == "stop").fill_null(False)
    lost = 1.0 - pl.col("s")
    t, m = pl.col("t"), pl.col("m")
    means = {
        "score": pl.col("s"),
        "lower": pl.when(t).then(0.0).otherwise(pl.col("s")),
        "upper": pl.when(t).then(1.0).otherwise(pl.col("s")),
        "answered": pl.when(m).then(1.0).otherwise(pl.col("s")),
        "stopped": pl.col("e").cast(pl.Float64),
        "truncated": t.cast(pl.Float64),
        "missing": m.cast(pl.Float64),
        "unclosed": (~pl.col("closed").fill_null(True)).cast(pl.Float64),
        "tokens": pl.col("n_tokens").fill_null(0).cast(pl.Float64),
        "reasoning_tokens": pl.col("n_reasoning_tokens").fill_null(0).cast(pl.Float64),
        "log_tokens": pl.col("n_tokens").fill_null(0).cast(pl.Float64).log1p(),
        "lost_truncation": pl.when(t).then(lost).otherwise(0.0),
        "lost_missing": pl.when(m & ~t).then(lost).otherwise(0.0),
        "lost_wrong": pl.when(m | t).then(0.0).otherwise(lost),
    }
    table = (
        records.lazy()
        .filter(pl.col("checkpoint").is_in(list(index)))
        .with_columns(s=score, t=truncated, m=missing, e=stop, j=judged)
        .group_by("probe", "benchmark", "item", "checkpoint")
        .agg(
            [v.filter(pl.col("j")).mean().alias(k) for k, v in means.items()]
            + [
                pl.col("s").filter(pl.col("j") & pl.col("e")).mean().alias("completed"),
                pl.col("j").sum().cast(pl.Float64).alias("ok"),
                pl.len().cast(pl.Float64).alias("rows"),
                pl.col("domain").min(),
                pl.col("cluster").fill_null("").min(),
            ]
        )
        .sort("probe", "benchmark", "item", "checkpoint")
        .collect()
    )
    out = {}
    for (probe, benchmark), part in table.group_by("probe", "benchmark", maintain_order=True):
        items = part["item"].unique(maintain_order=True)
        row = part["item"].replace_strict(items, np.arange(len(items)), return_dtype=pl.Int64).to_numpy()
        column = np.array([index[c] for c in part["checkpoint"]])
        values = {}
        for metric in METRICS:
            grid = np.full((len(index), len(items)), 0.0 if metric in ("ok", "rows") else np.nan)
            grid[column, row] = part[metric].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            values[metric] = grid
        named = dict(zip(part["item"], part["cluster"], strict=True))
        labels = [f"c:{named[i]}" if named[i] else f"i:{i}" for i in items]
        code = np.unique(np.array(labels), return_inverse=True)[1].astype(np.int64)
        domain = part["domain"][0]
        if domain == "safety" and any(word in str(benchmark).lower() for word in BENIGN):
            domain = OVER_REFUSAL
        samples = int(part["rows"].to_numpy().max())
        out[str(probe), str(benchmark)] = Panel(
            str(benchmark), domain, str(probe), tuple(items), values, code, samples
        )
    return out


def select(group: Group, members: list[Panel], steps: tuple[int, ...] | None = None) -> Selection | None:
    """The complete items of a group on some benchmarks: judged at every usable step for every seed.

    Steps at which fewer than half the items of a benchmark were judged are left out, so that a study in
    progress shows what is complete. None where nothing is.
    """
    usable = tuple(
        s
        for s in (group.steps if steps is None else steps)
        if all(p.usable(run[s]) for p in members for run in group.runs.values())
    )
    if not usable:
        return None
    indices = np.array([[group.runs[seed][s] for s in usable] for seed in group.seeds])  # (S, T)
    arrays: dict[str, list[Array]] = {m: [] for m in METRICS}
    cluster, stratum, dropped, offset = [], [], 0, 0
    for number, panel in enumerate(members):
        grid = panel.values["score"][indices]  # (S, T, items)
        keep = ~np.isnan(grid).any(axis=(0, 1))
        if not keep.any():
            return None
        dropped += int((~keep).sum())
        for metric in METRICS:
            arrays[metric].append(panel.values[metric][indices][:, :, keep].transpose(0, 2, 1))
        cluster.append(panel.cluster[keep] + offset)
        stratum.append(np.full(int(keep.sum()), number))
        offset += int(panel.cluster.max()) + 1
    return Selection(
        usable,
        {m: np.concatenate(parts, axis=1) for m, parts in arrays.items()},
        np.concatenate(cluster),
        np.concatenate(stratum),
        max(p.samples for p in members),
        dropped,
    )


def select_both(group: Group, first: list[Panel], second: list[Panel]) -> Selection | None:
    """The items that two probes of the same benchmarks share, complete in both: (seeds, items, 2T).

    The columns are the T steps of the first probe, then the same steps of the second; `steps` names them
    once. None where nothing is complete or fewer than two steps are.
    """
    steps = [
        s
        for s in group.steps
        if all(p.usable(run[s]) for p in (*first, *second) for run in group.runs.values())
    ]
    if len(steps) < 2:
        return None
    stacked = [_stack(a, b) for a, b in zip(first, second, strict=True)]
    if any(not panel.items for panel in stacked):
        return None
    offset, columns = len(first[0].values["score"]), len(steps)
    runs = {
        seed: {t: run[s] for t, s in enumerate(steps)}
        | {columns + t: offset + run[s] for t, s in enumerate(steps)}
        for seed, run in group.runs.items()
    }
    found = select(replace(group, runs=runs), stacked, tuple(range(2 * columns)))
    return None if found is None or len(found.steps) < 2 * columns else replace(found, steps=tuple(steps))


def _stack(a: Panel, b: Panel) -> Panel:
    """The joint items of two panels; the checkpoints of the second below those of the first."""
    shared = sorted(set(a.items) & set(b.items))
    left, right = (
        [at[item] for item in shared] for at in ({item: i for i, item in enumerate(p.items)} for p in (a, b))
    )
    values = {m: np.vstack([a.values[m][:, left], b.values[m][:, right]]) for m in METRICS}
    return replace(a, items=tuple(shared), values=values, cluster=a.cluster[left])
