"""The command line: verbs only. Everything heavy is imported by the verb that needs it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dipscope.errors import DipscopeError
from dipscope.verbs import audit, data, judge, score

INTERRUPTED = 130  # what typer exits with after Ctrl-C, without a word


class Tracker(StrEnum):
    """Where training can be shown while it goes on."""

    trackio = "trackio"
    wandb = "wandb"
    tensorboard = "tensorboard"


if TYPE_CHECKING:
    from dipscope.plan import Cell, Plan
    from dipscope.study import Study
    from dipscope.train.launch import Team

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Does this reasoning SFT generalize, under which conditions, and at what cost?\n\n"
    "Start with [bold]dipscope demo[/bold] (minutes on a laptop, no network). A study is a TOML file: "
    "[bold]dipscope plan STUDY[/bold] says what it will take, [bold]dipscope run STUDY[/bold] does it. "
    "Every verb can be interrupted and run again: what is done is not done twice.",
)

app.add_typer(data.app, name="data")

StudyArg = Annotated[
    str,
    typer.Argument(
        help="A study file (NAME.toml), or a preset: demo, smollm2, paper/table1, paper/table2, "
        "paper/table4, paper/overfitting, paper/capability, paper/teacher, paper/qwen2.5, paper/all, or one "
        "of the paper's runs, such as paper/qwen3-1.7b-math-cot.",
        metavar="STUDY",
    ),
]
ScaleOpt = Annotated[
    str | None, typer.Option("--scale", help="One of the study's own scales, such as 'small'.")
]
TrackOpt = Annotated[
    list[Tracker] | None,
    typer.Option("--track", help="Show training there too; may be given again. Changes no result."),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object last on standard output.")]
WorkersOpt = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Worker processes (default: one a core, one with a GPU)."),
]
MfuOpt = Annotated[
    float | None,
    typer.Option(
        "--mfu", min=0.01, max=1, help="Share of a GPU's peak that training reaches, if you know it."
    ),
]
WorldOpt = Annotated[
    int | None,
    typer.Option(
        "--world",
        min=1,
        help="Processes that train one run together, one a GPU (default: 1). On several nodes start dipscope "
        "with torchrun instead. The numbers stay what one process gives.",
    ),
]
WorkspaceOpt = Annotated[
    Path | None, typer.Option("--workspace", help="Where the study lives (default: workspaces/NAME).")
]


@app.command()
def demo(workspace: WorkspaceOpt = None, workers: WorkersOpt = None, json_: JsonOpt = False) -> None:
    """Run the embedded study: tiny models, no network, no GPU, a few minutes on two cores."""
    _run("demo", None, workspace, workers, json_)


@app.command()
def run(
    study: StudyArg,
    scale: ScaleOpt = None,
    workspace: WorkspaceOpt = None,
    workers: WorkersOpt = None,
    world: WorldOpt = None,
    track: TrackOpt = None,
    json_: JsonOpt = False,
) -> None:
    """Run a study: data, training, checkpoints, measurement, findings, page."""
    from dipscope.execute import follow
    from dipscope.train import launch

    members = launch.team(world)
    if members.follows:
        follow.follow(lambda: _load(study, scale, workspace)[2], members)
        return
    with launch.leading(members):
        _run(study, scale, workspace, workers, json_, members, track or ())


@app.command()
def plan(
    study: StudyArg,
    scale: ScaleOpt = None,
    workspace: WorkspaceOpt = None,
    workers: WorkersOpt = None,
    json_: JsonOpt = False,
    mfu: MfuOpt = None,
) -> None:
    """Show a study resolved: runs, tokens, GPU-hours, memory and disk. Runs nothing."""
    from dipscope.costs import cells, hardware, outlook
    from dipscope.workspace import Workspace

    spec, made, root = _load(study, scale, workspace)
    at = Workspace(root) if root.is_dir() else None
    each, total = cells.estimate(made, at, workers or _workers())
    seen = outlook.outlook(made, at, mfu or hardware.ASSUMED_MFU)
    if json_:
        told = {
            "study": spec.model_dump(mode="json", by_alias=True),
            "cells": [c.__dict__ for c in each],
            "total": total.as_dict(),
            "outlook": seen.as_dict(),
        }
        print(json.dumps(told))
        return
    from dipscope import planscreen, study_files

    planscreen.show(spec, each, total, seen, study_files.scales(study))


@app.command()
def status(
    workspace: Annotated[Path, typer.Argument(help="The workspace of a study.")], json_: JsonOpt = False
) -> None:
    """Say what is done, running and missing in a workspace."""
    from collections import Counter

    from dipscope import status as state

    made, at = state.recall(workspace)
    rows = state.cells(made, at)
    counts = Counter(r["state"] for r in rows)
    page = at.root / "report" / "index.html"
    if json_:
        print(
            json.dumps(
                {
                    "workspace": str(workspace),
                    "counts": counts,
                    "cells": rows,
                    "page": str(page) if page.is_file() else None,
                }
            )
        )
        return
    from dipscope import console

    console.show_status(rows, page if page.is_file() else None)


@app.command()
def report(workspace: Annotated[Path, typer.Argument(help="The workspace of a finished study.")]) -> None:
    """Analyse a workspace's records again and write its page."""
    from dipscope import status as state
    from dipscope.conclude import conclude

    made, at = state.recall(workspace)
    (at.root / "analysis.key").unlink(missing_ok=True)
    _, page, _ = conclude(made, at)
    print(page)


app.command("judge")(judge.judge)
app.command("score")(score.score)
app.command("audit")(audit.audit)


@app.command()
def pretrain(
    size: Annotated[str, typer.Argument(help="XS, S or M.")],
    out: Annotated[Path, typer.Argument(help="Folder for the model, in the Hugging Face layout.")],
    seed: Annotated[int, typer.Option(help="Seed of weights, documents and order.")] = 0,
) -> None:
    """Pretrain a tiny base model of the embedded world from random weights."""
    from dipscope.organism import base

    if size not in base.SIZES:
        raise DipscopeError(f"there is no size '{size}'", "pretrain", f"Sizes are {', '.join(base.SIZES)}.")
    base.pretrain(size, seed, out, lambda s: _line(f"step {s.step}/{s.total}  loss {s.loss:.3f}"))
    print(out)


def _line(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<60}", end="", file=sys.stderr, flush=True)


def _load(study: str, scale: str | None, workspace: Path | None) -> tuple[Study, Plan, Path]:
    from dipscope.plan import make
    from dipscope.study_files import load

    spec = load(study, scale)
    name = f"{spec.study.name}-{scale}" if scale else spec.study.name
    return spec, make(spec), workspace or Path("workspaces") / name


def _run(
    study: str,
    scale: str | None,
    workspace: Path | None,
    workers: int | None,
    json_: bool,
    members: Team | None = None,
    track: Sequence[Tracker] = (),
) -> None:
    from rich.console import Console

    from dipscope import console, integrity, retention
    from dipscope import status as state
    from dipscope.conclude import conclude, findings_json
    from dipscope.costs import cells
    from dipscope.execute import local
    from dipscope.progress import RunProgress
    from dipscope.train import trackers
    from dipscope.workspace import Workspace

    spec, made, root = _load(study, scale, workspace)
    if track:
        to = tuple(dict.fromkeys([*spec.track.to, *(t.value for t in track)]))
        spec = spec.model_copy(update={"track": spec.track.model_copy(update={"to": to})})
    trackers.require(spec.track.to)
    at = Workspace(root)
    at.take()
    state.remember(spec, at)
    at.log("run", study=spec.study.name)
    for note in integrity.heal(made, at):
        print(f"{note}: only that is redone", file=sys.stderr)
    number, keep = workers or _workers(), spec.storage.keep

    def drop(measured: Cell) -> None:
        retention.sweep(made, at, keep, measured.id)

    each, total = cells.estimate(made, at, number)
    if total.complete < total.cells:
        console.announce(spec, total, root)
        left = [c for c in each if at.outputs(c.cell) is None]
        names = {c.cell: f"{c.kind} {c.name}" for c in left}
        with RunProgress(names, {c.cell: c.seconds for c in left}, number) as progress:
            local.run(made.cells, at, number, progress, members, drop if keep != "all" else None)
    retention.sweep(made, at, keep)
    analysis, page, computed = conclude(made, at)
    if computed or total.complete < total.cells:
        from dipscope.report import terminal

        terminal.show(analysis, Console(stderr=json_))
    else:
        print("Nothing to do: every cell is complete and the page is current.", file=sys.stderr)
    errors = sum((at.outputs(c.id) or {}).get("errors", 0) for c in made.cells)
    if errors:
        told = f"{errors} records ended in an error and do not count; another run tries them again."
        print(told, file=sys.stderr)
    print(f"Page: {page.resolve()}", file=sys.stderr if json_ else sys.stdout)
    if json_:
        summary = {"workspace": str(root), "page": str(page), "records": analysis.records, "errors": errors}
        digest = {"records_digest": analysis.records_digest, "findings": findings_json(analysis)}
        print(json.dumps({**summary, **digest}))


def _workers() -> int:
    """One worker a core; one in all where a GPU is at hand, told without importing torch."""
    if Path("/dev/nvidia0").exists():
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """Entry point: every expected failure is one line on standard error and an exit code."""
    try:
        app()
    except DipscopeError as error:
        print(f"dipscope: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("dipscope: stopped. Run the same command again to go on.", file=sys.stderr)
        raise
    except OSError as error:
        print(f"dipscope: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
