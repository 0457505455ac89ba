"""`dipscope data build`: matched variants from a pool of responses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dipscope.errors import DipscopeError
from dipscope.verbs import arguments

_FEW = 0.1  # rows of a token-matched variant, as a share of the most, below which it is said why


def build(
    source: Annotated[
        str,
        typer.Argument(
            help="The pool: a file, a folder, a published set, or a dataset on the Hub "
            r"(owner/name\[@revision]\[:file])."
        ),
    ],
    out: Annotated[
        Path, typer.Argument(help="Folder of the dataset: new, empty, or that of the same build.")
    ],
    variants: Annotated[
        str, typer.Option(help="What to write, separated by commas; 'all' for every variant.")
    ] = "cot,no_cot",
    rows: Annotated[
        int | None, typer.Option(min=1, help=r"Queries to keep, such as the paper's 20480 \[default: all].")
    ] = None,
    keep: Annotated[
        Literal["random", "shortest", "longest", "median"],
        typer.Option(help="Which verified response of a query is kept."),
    ] = "random",
    seed: Annotated[int, typer.Option(min=0, help="Of choices, order and what the variants draw.")] = 0,
    min_length: Annotated[
        int | None, typer.Option(min=1, help="Leave shorter responses out (characters, or tokens).")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Leave longer responses out (characters, or tokens).")
    ] = None,
    token_matched: Annotated[
        bool,
        typer.Option("--token-matched", help="Equal supervised tokens in every variant, not equal rows."),
    ] = False,
    token_budget: Annotated[
        int | None, typer.Option(min=1, help=r"These tokens \[default: those of the smallest variant].")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help=r"Counts tokens: organism:S, a model's folder, or owner/name\[@revision]."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Benchmarks (such as 'small/*') or a file of questions to look for in the data; may be "
            "given several times."
        ),
    ] = None,
    items: Annotated[int, typer.Option(min=1, help="Test items of each benchmark to look for.")] = 1000,
    drop_contaminated: Annotated[
        bool, typer.Option("--drop-contaminated", help="Leave out queries in which one is found.")
    ] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=COLUMN where the mapping is not the inferred one, such as prompt=question."),
    ] = None,
    prefilled: arguments.Prefilled = False,
    revision: arguments.Revision = None,
    sha256: arguments.Sha256 = None,
    cache: Annotated[
        Path | None,
        typer.Option(help=r"Folder of verdicts for several builds to share \[default: OUT/.cache]."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help=r"Processes that read and verify \[default: one a core].")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object last on standard output.")
    ] = False,
) -> None:
    """Build matched variants from a pool: verify, choose one response a query, sample, transform.

    Responses that were cut, never close their thinking or have no final answer are dropped; the rest is
    verified against the gold answers. Every variant is made of the same queries in the same order; a query
    of which one of them cannot be made is left out of all. Written are a parquet file a variant,
    provenance.json and a data card. Stop it whenever you like: the same command goes on, and does nothing
    when all is done.

    Variants: cot, no_cot, answer_only, unverified, wrong_answer, shuffled_steps, dropped_steps, truncated,
    stripped_keywords, short_cot.

    Example: dipscope data build pool data/math --variants cot,no_cot,short_cot --rows 20480
    """
    import json

    from dipscope.benchmarks import passages
    from dipscope.data.building import build as building
    from dipscope.data.reading.sources import open_table
    from dipscope.progress import bar
    from dipscope.report import datacard
    from dipscope.scoring.verifiers import Verifiers

    rules = building.Rules(
        variants=_variants(variants),
        rows=rows,
        keep=keep,
        seed=seed,
        shortest=min_length,
        longest=max_length,
        token_matched=token_matched,
        budget=token_budget,
        drop_contaminated=drop_contaminated,
    )
    opened = open_table(
        arguments.source(source, columns or (), prefilled=prefilled, revision=revision, sha256=sha256)
    )
    _say(f"Columns: {opened.mapping.describe()}")
    with Verifiers(workers) as verifiers, bar("building") as report:
        made = building.build(
            opened,
            out,
            rules,
            verifiers,
            report,
            tokenizer=_tokenizer(tokenizer) if tokenizer else None,
            passages=passages.load(against, items) if against else None,
            cache=cache,
            card=datacard.write,
            workers=verifiers.workers,
        )
    _show(made, out)
    if json_:
        shown = {name: made[name] for name in ("fresh", "build", "counts", "queries", "refused", "variants")}
        print(json.dumps({"folder": str(out), **shown}))


def _tokenizer(text: str) -> Any:
    """The tokenizer, with a name for the card and the provenance."""
    found = arguments.tokenizer(text)
    found.name_or_path = found.name_or_path or text
    return found


def _variants(text: str) -> tuple[Any, ...]:
    from dipscope.data.shaping.variants import VARIANTS

    named = tuple(name.strip() for name in text.split(",") if name.strip())
    if named == ("all",):
        return VARIANTS
    if unknown := [name for name in named if name not in VARIANTS]:
        raise DipscopeError(
            f"there is no variant '{unknown[0]}'", "--variants", f"Variants are {', '.join(VARIANTS)}."
        )
    return named


def _show(made: Mapping[str, Any], out: Path) -> None:
    """The counts of a build, on standard error."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True)
    stages = Table("stage", box=None, pad_edge=False)
    for name in ("responses", "queries"):
        stages.add_column(name, justify="right")
    for stage, count in made["counts"].items():
        stages.add_row(stage, f"{count:,}", f"{made['queries'][stage]:,}")
    console.print(stages)
    verdicts = made["verification"]["verdicts"]
    _say("Verdicts: " + ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.items()) + ".")
    for variant, reasons in made["refused"].items():
        for reason, count in reasons.items():
            _say(f"Left out: {count:,} ({variant}: {reason}).")
    if found := made.get("decontamination"):
        _say(f"Benchmark passages: in {found['matched_traces']:,} of {found['traces']:,} responses.")
    for variant, facts in made["variants"].items():
        tokens = f", {facts['tokens']:,} supervised tokens" if "tokens" in facts else ""
        _say(f"{out / facts['file']}: {facts['rows']:,} rows{tokens} ({variant})")
    _say_matched(made)
    _say("Card: " + str(out / "README.md") if made["fresh"] else "Nothing to do: the build is complete.")


def _say_matched(made: Mapping[str, Any]) -> None:
    """Where matching by tokens leaves some variant few rows: which, and because of which."""
    tables = made["variants"]
    if not made["rules"]["token_matched"]:
        return
    rows = {variant: facts["rows"] for variant, facts in tables.items()}
    most, least = max(rows, key=lambda v: rows[v]), min(rows, key=lambda v: rows[v])
    if rows[least] < _FEW * rows[most]:
        _say(
            f"Matched by tokens, {least} keeps {rows[least]:,} rows beside {rows[most]:,} of {most}: "
            f"leave {most} out of the variants, or set --token-budget, for more."
        )


def _say(line: str) -> None:
    import sys

    print(line, file=sys.stderr)
