"""`dipscope data countdown`: Countdown problems of chosen difficulty, with the symbolic teacher's traces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dipscope.errors import DipscopeError
from dipscope.verbs.arguments import standing


def countdown(
    out: Annotated[Path, typer.Argument(help="The parquet table to write; its provenance goes beside it.")],
    rows: Annotated[int, typer.Option(min=1, help="Distinct problems.")] = 2048,
    numbers: Annotated[str, typer.Option(help="How many numbers a problem has, 2 to 6.")] = "3-4",
    smallest: Annotated[int, typer.Option(help="Smallest number.")] = 1,
    largest: Annotated[int, typer.Option(help="Largest number.")] = 99,
    target: Annotated[str, typer.Option(help="Range of the targets.")] = "10-999",
    operators: Annotated[str, typer.Option(help="Any of + - * /.")] = "+-*/",
    division: Annotated[
        Literal["whole", "exact"],
        typer.Option(help="Whether quotients must be whole numbers or may be fractions."),
    ] = "whole",
    use: Annotated[
        Literal["all", "some"], typer.Option(help="Whether an answer needs all numbers or a subset will do.")
    ] = "all",
    limit: Annotated[
        int, typer.Option(help=r"Largest result of a step on the way \[default: 99, 9999, … by size].")
    ] = 0,
    solutions: Annotated[
        str | None, typer.Option(help="Distinct solutions of a problem, such as 1-20 or 5-.")
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(help="Branches that a depth-first search tries until one works, such as 10-100."),
    ] = None,
    max_branches: Annotated[int, typer.Option(help="Most branches in a trace, the right one included.")] = 4,
    backtracking: Annotated[
        float | None,
        typer.Option(help=r"Mean number of failed branches in a trace \[default: fewer are likelier]."),
    ] = None,
    verification: Annotated[
        float | None,
        typer.Option(help=r"Chance that a branch is checked \[default: the right one always, no other]."),
    ] = None,
    subgoals: Annotated[float, typer.Option(help="Chance that a branch begins with what would do.")] = 0.0,
    prompt_style: Annotated[
        Literal["short", "list"],
        typer.Option(
            help="One sentence, or the published lines 'Numbers: [...]' and 'Target: n' with a box."
        ),
    ] = "short",
    split: Annotated[
        Literal["train", "dev", "test"], typer.Option(help="Splits share no problem, whatever the options.")
    ] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Of problems and traces.")] = 0,
    traces: Annotated[
        bool, typer.Option("--traces/--no-traces", help="Without traces: questions for 'data sample'.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite another table.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object last on standard output.")
    ] = False,
) -> None:
    """Make Countdown problems of chosen difficulty and verified search traces for them.

    Every problem is solvable and asked once. A trace tries branches, says no or yes to each, checks and
    answers; how often it goes back, checks and names an intermediate goal is up to you, and the rates that
    came out are shown. The same command gives the same bytes.

    Example: dipscope data countdown hard.parquet --numbers 4-5 --solutions 1-20 --backtracking 2

    For traces of an LLM: dipscope data countdown questions.parquet --prompt-style list --no-traces
    """
    import json

    from dipscope.data.countdown import table
    from dipscope.data.countdown.options import Options
    from dipscope.data.traces import write
    from dipscope.progress import bar
    from dipscope.workspace import hash_file, write_atomic

    asked = {
        "numbers": numbers, "smallest": smallest, "largest": largest, "target": target,
        "operators": operators, "division": division, "use": use, "limit": limit,
        "solutions": solutions, "depth": depth, "max_branches": max_branches, "backtracking": backtracking,
        "verification": verification, "subgoals": subgoals, "prompt_style": prompt_style,
    }  # fmt: skip
    options = Options.of({name: value for name, value in asked.items() if value is not None})
    if out.suffix != ".parquet":
        raise DipscopeError("the table is a parquet file", str(out), f"Name it {out.stem}.parquet.")
    beside = out.with_name(f"{out.stem}.provenance.json")
    found = None if force else standing(out, beside, table.request(rows, options, split, seed, traces))
    if found is None:
        with bar("countdown") as report:
            made = table.traces(rows, seed, options, split=split, answered=traces, report=report)
        write(out, made)
        found = {**table.summary(made, options, split, seed, traces), "sha256": hash_file(out)}
        write_atomic(beside, json.dumps(found, indent=1) + "\n")
    if json_:
        print(json.dumps({"path": str(out), "provenance": str(beside), **found}))
    else:
        _show(out, found)


def _show(out: Path, found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows, shown = int(found["rows"]), Table.grid(padding=(0, 2))
    numbers = ", ".join(f"{count:,} with {n}" for n, count in found["counts"]["numbers"].items())
    shown.add_row("problems", f"{rows:,} {found['split']} ({numbers} numbers)")
    words = found["words"]
    shown.add_row(
        "words a row", f"{words['prompt'] / rows:.1f} prompt, {words['response'] / rows:.1f} response"
    )
    if found["rates"] is not None:
        correct = found["counts"]["verdicts"].get("correct", 0)
        shown.add_row("solved", f"{correct / rows:.1%}")
        shown.add_row("failed branches a trace", f"{found['rates']['backtracking']:.3f}")
        shown.add_row("checks a branch", f"{found['rates']['verification']:.3f}")
        shown.add_row("goals named a branch", f"{found['rates']['subgoals']:.3f}")
    console = Console()
    console.print(shown)
    console.print(Text(str(out)), soft_wrap=True)
