"""From the records of a finished plan to its analysis and page. A pure function of the records, cached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from dipscope import records
from dipscope.analysis.results import Analysis
from dipscope.errors import DipscopeError
from dipscope.judging import store
from dipscope.judging.join import join
from dipscope.plan import Plan
from dipscope.workspace import Workspace, hash_file, hash_json, write_atomic

# Raise when analysis or page change what they say about the same records.
VERSION = 4


def checkpoints(plan: Plan, workspace: Workspace) -> pl.DataFrame:
    """One row per (run, step): which weights it is, and what it was trained on so far."""
    rows: list[dict[str, Any]] = []
    for run, base, trained, _ in plan.runs:
        variant, replay = plan.study.variant_of(run.dataset), plan.study.replay_of(run.dataset)
        data = _queries(plan, workspace, trained)
        first, rest = _outputs(workspace, base), _outputs(workspace, trained)
        points = [(0, 0, first["checkpoint"])]
        points += [(c["step"], c["tokens"], c["checkpoint"]) for c in rest["checkpoints"]]
        for step, tokens, checkpoint in points:
            rows.append(
                {
                    "run": run.name, "group": run.group, "model": run.model, "dataset": run.dataset,
                    "recipe": run.recipe, "seed": run.seed, "step": step, "tokens": tokens,
                    "variant": variant, "replay": replay, "data": data, "checkpoint": checkpoint,
                }
            )  # fmt: skip
    return pl.DataFrame(rows)


def _queries(plan: Plan, workspace: Workspace, trained: str) -> str:
    """What a run asked its model: equal where only variant or replay differ, empty where it is not known.

    Of a mix that is: the queries of its parts, and the shares that these have of what is not replay.
    """
    prepared = plan.cell(plan.cell(plan.cell(trained).needs[1]).needs[1])
    mixed = zip(prepared.settings.get("mix", {}).values(), map(plan.cell, prepared.needs), strict=False)
    parts = [(share, c) for share, c in mixed if c.kind == "prepare"] or [(1.0, prepared)]
    asked = [_outputs(workspace, c.id).get("queries") for _, c in parts]
    if None in asked:
        return ""
    whole = sum(share for share, _ in parts)
    shares = [round(share / whole, 9) for share, _ in parts]
    by = prepared.settings.get("by") if len(parts) > 1 else None  # of rows or of tokens: shares of what
    return hash_json([prepared.settings["rows"], by, sorted(zip(asked, shares, strict=True))])


def collect(plan: Plan, workspace: Workspace) -> pl.DataFrame:
    """The records that the plan asks for, each once, with the verdicts of judges, in canonical order.

    Raises:
        DipscopeError: a measure cell is not complete, or a shard is damaged.
    """
    from dipscope.measure import wanted_records

    cells = [c for c in plan.cells if c.kind == "measure"]
    done = ((c.settings["benchmarks"], _outputs(workspace, c.id)) for c in cells)
    table = wanted_records(done, workspace.root / "records")
    # Where a benchmark belongs is the study's to say: it may change without measuring again.
    belongs = {b.benchmark.name: b.domain for b in plan.benchmarks}
    table = table.with_columns(domain=pl.col("benchmark").replace_strict(belongs))
    return records.canonical(join(records.canonical(table), workspace.root / store.FOLDER))


def conclude(plan: Plan, workspace: Workspace) -> tuple[Analysis, Path, bool]:
    """Analysis, the page's path, and whether anything had to be computed.

    `analysis.key` says what analysis, page and figures were computed from and the hashes of their files. What
    is no longer as it was written is computed again: the analysis, or the report, or both.
    """
    from dipscope.analysis.analyze import analyze, to_json

    report, stored = workspace.root / "report", workspace.root / "analysis.json"
    stamp = workspace.root / "analysis.key"
    key, last = _key(plan, workspace), _stamp(stamp)
    if last.get("key") != key:
        last = {}
    analysis = _read(stored, last.get("analysis"))
    shown = bool(last) and last["report"].items() <= _files(report).items()
    if analysis is not None and shown:
        return analysis, report / "index.html", False
    from dipscope.report import page as pages

    table, points = collect(plan, workspace), checkpoints(plan, workspace)
    if analysis is None:
        analysis = analyze(table, points, plan.study.analysis, plan.study.study.name)
        analysis = replace(analysis, meta={**analysis.meta, "preflight": preflight(plan, workspace)})
        write_atomic(stored, to_json(analysis))
    if not shown or hash_file(stored) != last.get("analysis"):
        pages.write(analysis, table, points, report, prompts(plan))
    written = {"key": key, "analysis": hash_file(stored), "report": _files(report)}
    write_atomic(stamp, json.dumps(written, indent=1, sort_keys=True))
    return analysis, report / "index.html", True


def preflight(plan: Plan, workspace: Workspace) -> dict[str, list[str]]:
    """What the look at the tokenized rows had to say, by dataset and model."""
    notes: dict[str, list[str]] = {}
    for cell in plan.cells:
        if cell.kind == "tokenize":  # of one dataset and model there may be several, cut at other lengths
            known = notes.setdefault(cell.name, [])
            known += [n for n in _outputs(workspace, cell.id)["notes"] if n not in known]
    return notes


def _read(path: Path, expected: str | None) -> Analysis | None:
    """The stored analysis, unless its file is not the expected one or was written by another version."""
    from dipscope.analysis.analyze import from_json

    if not path.is_file() or hash_file(path) != expected:
        return None
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except DipscopeError:
        return None


def _stamp(path: Path) -> dict[str, Any]:
    try:
        stamp = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and isinstance(stamp.get("report"), dict) else {}


def _files(folder: Path) -> dict[str, str]:
    """Hashes of the files of a folder, by their paths in it."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {p.relative_to(folder).as_posix(): hash_file(p) for p in files}


def prompts(plan: Plan) -> dict[tuple[str, str], str]:
    """The questions of the study, by benchmark and item."""
    split = plan.study.measure.split
    return {
        (b.benchmark.name, item.id): item.prompt
        for b in plan.benchmarks
        for item in b.benchmark.items(b.items, split)
    }


def _key(plan: Plan, workspace: Workspace) -> str:
    done = {c.id: _content(_outputs(workspace, c.id)) for c in plan.cells if c.kind in ("train", "measure")}
    domains = {b.benchmark.name: b.domain for b in plan.benchmarks}
    said = [plan.study.analysis.model_dump(), plan.study.study.name, domains, preflight(plan, workspace)]
    judged = sorted(p.name for p in (workspace.root / store.FOLDER).glob("part-*.parquet"))
    return hash_json([VERSION, *said, done, judged, checkpoints(plan, workspace).to_dicts()])


def _content(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """What analysis and page follow from, without how the work went."""
    return {k: v for k, v in outputs.items() if k in ("checkpoints", "checkpoint", "shards", "engine")}


def _outputs(workspace: Workspace, cell: str) -> dict[str, Any]:
    outputs = workspace.outputs(cell)
    if outputs is None:
        raise DipscopeError("the cell is not complete", cell, "Run the study again.", fault=True)
    return outputs


def findings_json(analysis: Analysis) -> list[dict[str, Any]]:
    """The ledger as plain data."""
    from dataclasses import asdict

    return json.loads(json.dumps([asdict(f) for f in analysis.findings]))  # type: ignore[no-any-return]
