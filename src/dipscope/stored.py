"""Generated records of a workspace as they are stored, whichever version of a scoring rule judged them.

An analysis takes only what the study's plan asks for under today's rules (`conclude.collect`). Here the text
matters: prompt and sampling must be those of the study, the scorer may be an older one, and the study need
not be finished.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import polars as pl

from dipscope import records
from dipscope.benchmarks.published import Published
from dipscope.errors import DipscopeError
from dipscope.measure import tasks
from dipscope.plan import BenchmarkPlan, Plan
from dipscope.scoring.base import Benchmark, Item
from dipscope.workspace import Workspace

KEY = [*records.KEY, "engine"]  # of one key there may be records in two numeric formats


@dataclass(frozen=True)
class Point:
    """A measured checkpoint.

    Attributes:
        checkpoint: content hash of its weights.
        name: `RUN @ STEP`; of several runs that share it the first, at step 0 the model.
        step: optimizer steps it was trained for.
    """

    checkpoint: str
    name: str
    step: int


def points(plan: Plan, workspace: Workspace) -> list[Point]:
    """The checkpoints that exist so far, each once, in the order of the study's runs."""
    found: dict[str, Point] = {}
    for run, base, trained, _ in plan.runs:
        if (first := workspace.outputs(base)) is not None:
            weights = first["checkpoint"]
            found.setdefault(weights, Point(weights, f"{run.model} @ 0", 0))
        for made in (workspace.outputs(trained) or {}).get("checkpoints", ()):
            weights, step = made["checkpoint"], made["step"]
            found.setdefault(weights, Point(weights, f"{run.name} @ {step}", step))
    return list(found.values())


def generated(plan: Plan, workspace: Workspace, benchmarks: Iterable[BenchmarkPlan]) -> pl.DataFrame:
    """The generated records of some of a study's benchmarks, sorted by key.

    Where a text was judged under several versions of the scorer, today's counts, else the last by name.

    Raises:
        DipscopeError: there are none, or a shard is damaged.
    """
    chosen = list(benchmarks)
    measured = [
        workspace.root / "records" / point.checkpoint / b.benchmark.name.replace("/", "__")
        for point in points(plan, workspace)
        for b in chosen
    ]
    folders = [folder for place in measured for folder in sorted(place.glob("generate-*"))]
    table = records.read(shard for folder in folders for shard in records.shards(folder))
    settings = [b.settings(plan.study.measure) | {"likelihood": False} for b in chosen]
    asked = [
        (t.benchmark.name, t.probe, t.item.id, t.sample, t.prompt_hash, t.sampling_hash, engine)
        for engine in sorted(table["engine"].unique())
        for t in tasks(settings, engine)
    ]
    names = ["benchmark", "probe", "item", "sample", "prompt_hash", "sampling_hash", "engine"]
    keys = pl.DataFrame(asked, schema={name: records.SCHEMA[name] for name in names}, orient="row")
    today = pl.DataFrame(
        [(b.benchmark.name, b.benchmark.scorer) for b in chosen],
        schema={"benchmark": pl.String, "today": pl.String},
        orient="row",
    )
    table = table.join(keys, on=names, how="semi").join(today, on="benchmark", how="left")
    if table.is_empty():
        fix = "Run the study first, or name other benchmarks: the study measures "
        fix += f"{', '.join(b.benchmark.name for b in plan.benchmarks)}."
        raise DipscopeError("there are no generated records of these benchmarks", str(workspace.root), fix)
    ordered = table.sort(
        [*map(pl.col, KEY), pl.col("scorer") != pl.col("today"), pl.col("verdict") == "error", "scorer"],
        descending=[False] * (len(KEY) + 2) + [True],
        maintain_order=True,
    )
    return ordered.unique(KEY, keep="first", maintain_order=True).select(list(records.SCHEMA))


def items(plan: Plan, planned: BenchmarkPlan, benchmark: Benchmark | None = None) -> dict[str, Item]:
    """Items by id, of a benchmark of the study or of the same one under another protocol.

    Of a published set all are given: what one protocol sets apart as dev, the other may measure.

    Args:
        plan: of the study.
        planned: the benchmark as the study measures it.
        benchmark: the one under another protocol.
    """
    asked = benchmark or planned.benchmark
    if not isinstance(asked, Published):
        return {item.id: item for item in asked.items(planned.items, plan.study.measure.split)}
    found = {item.id: item for item in asked.items(sys.maxsize, "test")}
    with suppress(DipscopeError):  # it has no dev split
        found |= {item.id: item for item in asked.items(sys.maxsize, "dev")}
    return found
