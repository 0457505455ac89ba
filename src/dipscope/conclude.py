"""From the records of a finished plan to its analysis and page. A pure function of the records, cached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from dipscope import records
from dipscope.analysis.results import Analysis
from dipscope.errors import DipscopeError
from dipscope.plan import Plan
from dipscope.workspace import Workspace, hash_json, write_atomic

# Raise when analysis or page change what they say about the same records.
VERSION = 1


def checkpoints(plan: Plan, workspace: Workspace) -> pl.DataFrame:
    """One row per (run, step): which weights it is, and what it was trained on so far."""
    rows: list[dict[str, Any]] = []
    for run, base, trained, _ in plan.runs:
        dataset = plan.study.datasets[run.dataset]
        first, rest = _outputs(workspace, base), _outputs(workspace, trained)
        points = [(0, 0, first["checkpoint"])]
        points += [(c["step"], c["tokens"], c["checkpoint"]) for c in rest["checkpoints"]]
        for step, tokens, checkpoint in points:
            rows.append(
                {
                    "run": run.name, "group": run.group, "model": run.model, "dataset": run.dataset,
                    "recipe": run.recipe, "seed": run.seed, "step": step, "tokens": tokens,
                    "variant": dataset.variant, "replay": dataset.replay, "checkpoint": checkpoint,
                }
            )  # fmt: skip
    return pl.DataFrame(rows)


def collect(plan: Plan, workspace: Workspace) -> pl.DataFrame:
    """The records that the plan asks for, each once, in canonical order.

    Raises:
        DipscopeError: a measure cell is not complete, or a shard is damaged.
    """
    from dipscope.measure import tasks, wanted_rows

    tables = []
    for cell in plan.cells:
        if cell.kind == "measure":
            outputs = _outputs(workspace, cell.id)
            folder = workspace.root / "records" / outputs["checkpoint"]
            table = records.read(folder / name for name in outputs["shards"])
            tables.append(wanted_rows(table, tasks(cell.settings["benchmarks"], outputs["engine"])))
    return records.canonical(pl.concat(tables))


def conclude(plan: Plan, workspace: Workspace) -> tuple[Analysis, Path, bool]:
    """Analysis, the page's path, and whether anything had to be computed."""
    from dipscope.analysis.analyze import analyze, from_json, to_json

    page = workspace.root / "report" / "index.html"
    stored, stamp = workspace.root / "analysis.json", workspace.root / "analysis.key"
    key = _key(plan, workspace)
    if stamp.is_file() and stamp.read_text() == key and page.is_file():
        return from_json(stored.read_text(encoding="utf-8")), page, False
    from dipscope.report import page as pages

    table, points = collect(plan, workspace), checkpoints(plan, workspace)
    analysis = analyze(table, points, plan.study.analysis, plan.study.study.name)
    write_atomic(stored, to_json(analysis))
    page = pages.write(analysis, table, points, workspace.root / "report", prompts(plan))
    write_atomic(stamp, key)
    return analysis, page, True


def prompts(plan: Plan) -> dict[tuple[str, str], str]:
    """The questions of the study, by benchmark and item."""
    split = plan.study.measure.split
    return {
        (b.benchmark.name, item.id): item.prompt
        for b in plan.benchmarks
        for item in b.benchmark.items(b.items, split)
    }


def _key(plan: Plan, workspace: Workspace) -> str:
    done = {c.id: _outputs(workspace, c.id) for c in plan.cells if c.kind in ("train", "measure")}
    return hash_json([VERSION, plan.study.analysis.model_dump(), plan.study.study.name, done])


def _outputs(workspace: Workspace, cell: str) -> dict[str, Any]:
    outputs = workspace.outputs(cell)
    if outputs is None:
        raise DipscopeError("the cell is not complete", cell, "Run the study again.", fault=True)
    return outputs


def findings_json(analysis: Analysis) -> list[dict[str, Any]]:
    """The ledger as plain data."""
    from dataclasses import asdict

    return json.loads(json.dumps([asdict(f) for f in analysis.findings]))  # type: ignore[no-any-return]
