"""The kinds of cell: what each one reads, does and leaves behind. Runs inside a worker process."""

from __future__ import annotations

import itertools
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
from dipscope.study import Model
from dipscope.train import launch
from dipscope.workspace import Workspace, hash_file, hash_json

if TYPE_CHECKING:
    from dipscope.engine.local import LocalEngine

Report = Callable[[int, int, str], None]  # done, total, note

# One engine per worker process and numeric format: checkpoints of one architecture are swapped into it, not
# loaded anew.
_engines: dict[str, LocalEngine] = {}
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def do(cell: Cell, workspace: Workspace, report: Report, members: launch.Team | None = None) -> None:
    """Do one cell whose needs are complete, and mark it complete.

    Args:
        cell: what to do.
        workspace: where.
        report: called with progress.
        members: the ranks that share a train cell; one where it is not said.

    Raises:
        DipscopeError: with the cell's name as `where` if the stage gave none.
    """
    start = time.monotonic()
    workspace.log("start", cell=cell.id)
    inputs = [workspace.outputs(need) for need in cell.needs]
    if any(i is None for i in inputs):
        raise DipscopeError("a cell it needs is not complete", cell.name, "Run the study again.", fault=True)
    given = [i for i in inputs if i is not None]
    if cell.kind == "train" and members is not None and members.size > 1:
        outputs = train_together(cell, given, workspace, report, members)
    else:
        outputs = _STAGES[cell.kind](cell, given, workspace, report)
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
    from dipscope import bases, integrity

    model = Model.model_validate(cell.settings["model"])
    folder = bases.resolve(model, workspace.root / "models" / cell.key, _steps(report))
    checkpoint = integrity.first_hash(cell, folder, workspace)
    return {"folder": workspace.relative(folder), "checkpoint": checkpoint}


def replay(
    cell: Cell, inputs: Sequence[Mapping[str, Any]], workspace: Workspace, report: Report
) -> dict[str, Any]:
    """Have the base answer generic prompts itself: the rows that datasets with replay mix in."""
    from dipscope import integrity
    from dipscope.data import replay as replaying
    from dipscope.organism.prompts import replay_prompts

    s = cell.settings
    folder = integrity.check_base(cell.needs[0], inputs[0], workspace)
    prompts: Iterable[str] = replaying.general_prompts(s["seed"])
    if s["prompts"] == "organism":
        prompts = replay_prompts(s["seed"])
    engine, tokenizer = _engine(folder, "fp32"), _tokenizer(folder)
    return _keep(cell, workspace, replaying.replay(engine, tokenizer, s["rows"], s["seed"], prompts, report))


def prepare(
    cell: Cell, inputs: Sequence[Mapping[str, Any]], workspace: Workspace, report: Report
) -> dict[str, Any]:
    """Make the trace table of a dataset: traces in their variant, or a mix of tables."""
    from dipscope.data import countdown
    from dipscope.data.reading import sources
    from dipscope.data.shaping import variants

    s = cell.settings
    if "mix" in s:
        return _keep(cell, workspace, _mixed(cell, inputs, workspace))
    facts: dict[str, Any] = {}
    if "source" in s:
        original: Iterable[Trace] = countdown.traces(s["rows"], s["seed"], s["options"])
    else:
        table = sources.open_table(sources.Source.from_settings(s["from"]))
        facts = {"facts": table.facts, "columns": table.columns}
        original = itertools.islice(table.stream(), s["rows"])
    made = []
    for trace in original:
        made.append(variants.apply(s["variant"], trace, random.Random(f"{s['seed']}:{trace.id}")))
        report(len(made), s["rows"], "rows")
    if len(made) < s["rows"]:
        raise DipscopeError(
            f"it has {len(made)} rows, {s['rows']} are asked for", f"datasets.{cell.name}", "Lower rows."
        )
    return _keep(cell, workspace, made) | facts


def _mixed(cell: Cell, inputs: Sequence[Mapping[str, Any]], workspace: Workspace) -> list[Trace]:
    from dipscope.data import mix
    from dipscope.data.tokenize import render

    s = cell.settings
    tables = {
        part: _read_table(source, need, workspace)
        for part, source, need in zip(s["mix"], inputs, cell.needs, strict=False)
    }
    if s["by"] == "rows":
        return mix.merge(tables, mix.counts(s["mix"], s["rows"]))
    tokenizer = _tokenizer(workspace.absolute(inputs[-1]["folder"]))
    lengths = {
        part: [len(render(tokenizer, trace).target_ids) for trace in table] for part, table in tables.items()
    }
    return mix.merge(tables, mix.counts_by_tokens(s["mix"], s["rows"], lengths))


def _keep(cell: Cell, workspace: Workspace, table: Sequence[Trace]) -> dict[str, Any]:
    path = workspace.root / "data" / cell.key / "traces.parquet"
    trace_table.write(path, table)
    asked = hash_json(sorted({t.query for t in table}))
    return {
        "traces": workspace.relative(path),
        "sha256": hash_file(path),
        "rows": len(table),
        "queries": asked,
    }


def _read_table(source: Mapping[str, Any], cell: str, workspace: Workspace) -> list[Trace]:
    return trace_table.read(_whole(source, "traces", cell, workspace))


def _whole(source: Mapping[str, Any], what: str, cell: str, workspace: Workspace) -> Path:
    """The file that a cell left, after a look at its checksum."""
    path = workspace.absolute(source[what])
    if not path.is_file() or hash_file(path) != source["sha256"]:
        workspace.forget(cell)
        raise DipscopeError("the file is damaged", str(path), "Run again: it is made anew.", fault=True)
    return path


def tokenize(
    cell: Cell, inputs: Sequence[Mapping[str, Any]], workspace: Workspace, report: Report
) -> dict[str, Any]:
    """Render the traces in the model's chat template, once for all runs; refuse what cannot teach."""
    from dipscope.data.tokenize import TokenTable, render
    from dipscope.train.preflight import preflight

    tokenizer = _tokenizer(workspace.absolute(inputs[0]["folder"]))
    table = _read_table(inputs[1], cell.needs[1], workspace)
    examples = []
    for trace in table:
        examples.append(render(tokenizer, trace, cell.settings["max_length"]))
        report(len(examples), len(table), "rows")
    notes = preflight(tokenizer, examples, table)
    path = workspace.root / "data" / cell.key / "tokens.safetensors"
    TokenTable.of(examples).write(path)
    return {"tokens": workspace.relative(path), "sha256": hash_file(path), "notes": notes}


def train(
    cell: Cell, inputs: Sequence[Mapping[str, Any]], workspace: Workspace, report: Report
) -> dict[str, Any]:
    """Fine-tune the base on the tokenized traces, leaving a checkpoint at every listed step.

    Where this process is one rank of several, each must call; only the first one's outputs are whole.
    """
    from dipscope import integrity
    from dipscope.data.tokenize import TokenTable
    from dipscope.train import loop, trackers
    from dipscope.train.checkpoints import read_marker
    from dipscope.train.step import StepReport
    from dipscope.train.world import current

    world = current()
    if world.device.type == "cuda":
        _engines.clear()  # what was measured last would stay on the card beside the training
    world.lead(lambda: integrity.check_base(cell.needs[0], inputs[0], workspace))
    base_folder = workspace.absolute(inputs[0]["folder"])
    recipe = recipe_of(cell.settings)
    examples = TokenTable.read(_whole(inputs[1], "tokens", cell.needs[1], workspace))
    out = workspace.root / "runs" / cell.key
    show, work, notes = _steps(report), 0, list[str]()

    def on_step(done: StepReport) -> None:
        nonlocal work
        work += done.tokens  # of this stretch alone: what was done before an interruption took no time now
        show(done)
        follow()

    origin = {"cell": cell.id, "parent": inputs[0]["checkpoint"]}
    project, to = trackers.asked(workspace.root)
    tracked = trackers.Tracked(project, cell.name, cell.key, cell.settings, workspace.root / "trackers")
    with trackers.following(to if world.leader else (), out / "train.jsonl", tracked, notes.append) as follow:
        folders = loop.train(
            base_folder, examples, recipe, cell.settings["seed"], out, on_step,
            on_note=notes.append, origin=origin,
        )  # fmt: skip
    if not world.leader:
        return {}
    checkpoints = []
    for folder, step in zip(folders, cell.settings["steps"], strict=True):
        marker = read_marker(folder) or {}
        place = workspace.relative(folder)
        if "replaces" in marker:
            notes.append(f"{place}: trained again, the weights are not those that were dropped")
        tokens, weights = marker["supervised"], marker["weights"]
        checkpoints.append({"step": step, "tokens": tokens, "checkpoint": weights, "folder": place})
    return {"checkpoints": checkpoints, "notes": notes, "work": work}


def train_together(
    cell: Cell,
    inputs: Sequence[Mapping[str, Any]],
    workspace: Workspace,
    report: Report,
    members: launch.Team,
    round_: int = 0,
) -> dict[str, Any]:
    """`train` with several ranks, each in a process of its own; what a follower gets has no outputs.

    Args:
        cell: the train cell.
        inputs: outputs of the cells it needs.
        workspace: where, on a disk that all ranks see.
        report: called with progress.
        members: the ranks, and which of them are started here.
        round_: number of the call, where other processes start ranks too; the first one's is announced.
    """
    if members.meeting is not None and not members.follows:
        round_ = launch.announce(members, asdict(cell))
    _engines.clear()  # the ranks need the memory of the GPUs
    arguments = (cell, inputs, workspace.root)
    log = workspace.root / "ranks.log"
    return launch.run(_train_rank, arguments, members, report, log, round_=round_) or {}


def _train_rank(
    cell: Cell, inputs: Sequence[Mapping[str, Any]], root: Path, report: Report
) -> dict[str, Any]:
    workspace = Workspace(root)
    workspace.hold_worker_lock()
    return train(cell, inputs, workspace, report)


def measure(
    cell: Cell, inputs: Sequence[Mapping[str, Any]], workspace: Workspace, report: Report
) -> dict[str, Any]:
    """Measure one checkpoint on every benchmark."""
    from dipscope import integrity
    from dipscope import measure as measuring
    from dipscope.train.checkpoints import verify

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
        folder = integrity.check_base(cell.needs[0], source, workspace)
    engine = _engine(folder, cell.settings["precision"])
    checkpoint = source["checkpoint"]
    shards, tokens, errors = measuring.measure(
        engine, _tokenizer(folder), checkpoint, cell.settings["benchmarks"],
        workspace.root / "records" / checkpoint, report,
    )  # fmt: skip
    swap = engine.swap_report
    notes = [
        f"{n} record{'s' * (n > 1)} of {name} ended in an error ({why}); the next run tries again"
        for (name, why), n in errors.items()
    ]
    done = {"checkpoint": checkpoint, "engine": engine.name, "shards": shards, "work": tokens}
    more = {"errors": sum(errors.values()), "notes": notes, "swap": asdict(swap) if swap else None}
    return done | more


def replace_fix(error: DipscopeError, fix: str) -> DipscopeError:
    """The same failure with another remedy."""
    return DipscopeError(error.what, error.where, fix, fault=error.fault)


def _engine(folder: Path, precision: str) -> LocalEngine:
    from dipscope.engine.local import LocalEngine

    engine = _engines.setdefault(precision, LocalEngine(dtype=_DTYPES[precision]))
    engine.load(folder)
    return engine


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def _steps(report: Report) -> Callable[[Any], None]:
    def show(s: Any) -> None:
        report(s.step, s.total, f"loss {s.loss:.3f}, {s.tokens / s.seconds:,.0f} tokens/s")

    return show


_STAGES = {
    "base": base,
    "replay": replay,
    "prepare": prepare,
    "tokenize": tokenize,
    "train": train,
    "measure": measure,
}
