"""Verdicts of judges beside the records: what joins, what it covers, and how far it could be off.

Records stay as they were written. Joining is a pure function of the records and the folder of judgements.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dipscope.judging import store
from dipscope.judging.cases import drawn
from dipscope.stats import ppi

_BY = ["judge", "rubric", "view"]  # verdicts that differ in one of them are never mixed


def join(table: pl.DataFrame, folder: Path, judge: str | None = None) -> pl.DataFrame:
    """The records with the verdicts of judges in the place of the scorers' own.

    Where a benchmark was judged, every generated record of it that has something to judge gets the judge's
    verdict; one that the judge has not graded becomes an `error`, which is no observation: verdicts of two
    scorers are never mixed on one curve. Verdicts under another rubric or view are added as rows of a probe
    of their own, named like `harm-trace`. Of several judges, rubrics or views of one benchmark and probe, the
    one that graded most of these records counts. Where none says anything of these records, they stay as they
    are.

    Args:
        table: records.
        folder: of the judgements; a missing one joins nothing.
        judge: only this one's verdicts.
    """
    judged = store.read(folder)
    if judge is not None:
        judged = judged.filter(pl.col("judge") == judge)
    if judged.is_empty():
        return table
    columns = table.columns
    hashed = _hashed(table)
    kept, added = hashed, []
    for (benchmark, probe), verdicts in sorted(judged.group_by("benchmark", "probe"), key=lambda g: g[0]):
        rows = hashed.filter((pl.col("benchmark") == benchmark) & (pl.col("probe") == "generate"))
        chosen = _widest(verdicts, rows)
        if chosen is None:
            continue
        changed = _with(rows, chosen).with_columns(probe=pl.lit(probe))
        kept = kept.filter((pl.col("benchmark") != benchmark) | (pl.col("probe") != probe))
        added.append(changed)
    return pl.concat([kept, *added]).select(columns)


def _hashed(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(
        text_hash=pl.col("text").map_elements(store.text_hash, return_dtype=pl.String),
        protocol=pl.col("scorer").map_elements(store.protocol, return_dtype=pl.String),
    )


def _widest(verdicts: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame | None:
    """The verdicts of one judge, rubric and view that grade most of these rows; None when none is on them."""
    there = verdicts.join(rows, on=store.AT, how="semi")
    if there.is_empty():
        return None
    graded = (pl.col("verdict") != "error").sum().alias("graded")
    counts = there.group_by(_BY).agg(graded, pl.len())
    ordered = counts.sort(["graded", "len", *_BY], descending=[True, True, False, True, False])
    return verdicts.join(ordered.head(1), on=_BY, how="semi", maintain_order="left")


def _with(rows: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
    """Rows of one benchmark with one judge's verdicts; what has no answer keeps its `missing`."""
    judge, rubric, view = verdicts.select(_BY).row(0)
    ending = pl.when(pl.col("protocol") == "").then(pl.lit("")).otherwise("+" + pl.col("protocol"))
    scorer = pl.lit(f"judge {judge} {rubric} {view}") + ending
    given = verdicts.select(*store.AT, **{f"given_{c}": pl.col(c) for c in ("verdict", "score", "extracted")})
    both = rows.join(
        given.unique(store.AT, keep="first", maintain_order=True),
        on=store.AT,
        how="left",
        maintain_order="left",
    )
    nothing = (pl.col("finish") == "error") | (_shown(view).str.strip_chars() == "")
    graded = {
        name: pl.when(nothing).then(pl.col(name)).otherwise(pl.col(f"given_{name}"))
        for name in ("verdict", "score", "extracted")
    }
    graded["verdict"] = graded["verdict"].fill_null("error")
    return both.with_columns(**graded, scorer=scorer).select(rows.columns)


def _shown(view: str) -> pl.Expr:
    if view == "trace":
        return pl.col("text")
    if view == "answer":
        return pl.col("answer")
    return pl.when("closed").then(pl.col("answer")).otherwise(pl.col("text"))


@dataclass(frozen=True)
class Coverage:
    """What a judge's verdicts say of one checkpoint on one benchmark.

    Attributes:
        records: generated records; missing: those with nothing to judge, which score 0.
        graded: records with a grade; invalid: with a reply that is none; unasked: without a reply.
        score: mean over records with a grade and missing ones; None without any.
        low, high: the same if every record without a grade had scored 0, or 1.
        labels: how often each grade was given.
        calibrated: the mean corrected by a stronger judge of a part of the texts.
    """

    checkpoint: str
    benchmark: str
    probe: str
    judge: str
    rubric: str
    view: str
    records: int
    missing: int
    graded: int
    invalid: int
    unasked: int
    score: float | None
    low: float
    high: float
    labels: dict[str, int]
    calibrated: ppi.Estimate | None = None

    @property
    def coverage(self) -> float:
        """Share of the records that the score rests on."""
        return (self.graded + self.missing) / self.records

    def share(self, label: str) -> float | None:
        """Share of a grade among the records graded."""
        return self.labels.get(label, 0) / self.graded if self.graded else None

    def as_dict(self) -> dict[str, Any]:
        """For a machine."""
        return {**asdict(self), "coverage": self.coverage, "mean_label": self.mean_label}

    @property
    def mean_label(self) -> float | None:
        """Mean of the grades where they are numbers: of 1 to 5, or of raw rewards."""
        try:
            total = sum(float(label) * count for label, count in self.labels.items())
        except ValueError:
            return None
        return total / self.graded if self.graded else None


def coverage(
    table: pl.DataFrame, folder: Path, judge: str | None = None, strong: str | None = None
) -> list[Coverage]:
    """What the judgements of a folder say of some records, by checkpoint, benchmark, probe and judge.

    Args:
        table: records.
        folder: of the judgements.
        judge: only this one's.
        strong: a judge whose grades of a part of the items correct the mean.
    """
    judged = store.read(folder)
    shown = judged if judge is None else judged.filter(pl.col("judge") == judge)
    hashed = _hashed(table).filter(pl.col("probe") == "generate")
    found = []
    for names, verdicts in sorted(shown.group_by("benchmark", "probe", *_BY), key=lambda g: g[0]):
        benchmark, _, _, rubric, view = map(str, names)
        rows = hashed.filter(pl.col("benchmark") == benchmark)
        if rows.join(verdicts, on=store.AT, how="semi").is_empty():
            continue  # of other responses, or under another protocol
        better = judged.filter(
            pl.col("judge").eq_missing(strong), benchmark=benchmark, rubric=rubric, view=view
        )
        for (checkpoint,), part in sorted(rows.group_by("checkpoint"), key=lambda g: g[0]):
            graded = _with(part, verdicts)
            corrected = _calibrated(graded, part, better) if len(better) else None
            replied = part.join(verdicts.filter(pl.col("verdict") == "error"), on=store.AT, how="semi")
            found.append(_covered(str(checkpoint), list(map(str, names)), graded, len(replied), corrected))
    return found


def _covered(
    checkpoint: str, names: list[str], graded: pl.DataFrame, invalid: int, corrected: ppi.Estimate | None
) -> Coverage:
    missing = graded.filter(pl.col("verdict") == "missing")
    good = graded.filter(pl.col("verdict").is_in(["correct", "wrong"]))
    n, unknown = len(graded), len(graded) - len(missing) - len(good)
    total, known = float(good["score"].sum()), len(missing) + len(good)
    labels = good["extracted"].drop_nulls().value_counts().sort("extracted").rows()
    benchmark, probe, judge, rubric, view = names
    return Coverage(
        checkpoint,
        benchmark,
        probe,
        judge,
        rubric,
        view,
        records=n,
        missing=len(missing),
        graded=len(good),
        invalid=invalid,
        unasked=unknown - invalid,
        score=total / known if known else None,
        low=total / n,
        high=(total + unknown) / n,
        labels=dict(labels),
        calibrated=corrected,
    )


def _share(rows: pl.DataFrame, verdicts: pl.DataFrame) -> float:
    """Up to which number the items were drawn that a judge was shown; below 0 where it was shown none."""
    shown = rows.join(verdicts, on=store.AT, how="semi").select("benchmark", "item").unique()
    return max((drawn(*one) for one in shown.iter_rows()), default=-1.0)


def _calibrated(cheap: pl.DataFrame, rows: pl.DataFrame, better: pl.DataFrame) -> ppi.Estimate | None:
    """The mean over items, corrected; an item counts where all its records are graded or missing.

    An item without any answer needs no judge. It counts as judged by the strong one where it was drawn with
    the others: were all such items to count, those judged would be no random part, and their mean too low.
    """
    means = [_item_means(t) for t in (cheap, _with(rows, better))]
    benchmark, share = rows["benchmark"][0], _share(rows, better)
    both = sorted(i for i in means[0].keys() & means[1].keys() if drawn(benchmark, i) <= share)
    rest = sorted(means[0].keys() - set(both))
    if len(both) < 2:
        return None
    return ppi.ppi_mean([means[1][i] for i in both], [means[0][i] for i in both], [means[0][i] for i in rest])


def _item_means(graded: pl.DataFrame) -> dict[str, float]:
    scored = pl.when(pl.col("verdict") == "missing").then(0.0).otherwise("score")
    whole = graded.group_by("item").agg(
        scored.mean().alias("mean"), (pl.col("verdict") == "error").any().alias("gap")
    )
    return dict(whole.filter(~pl.col("gap")).select("item", "mean").iter_rows())
