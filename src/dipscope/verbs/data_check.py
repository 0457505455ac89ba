"""`dipscope data check`: what is in a data set, what training makes of it, and what must not be in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dipscope.errors import DipscopeError
from dipscope.verbs import arguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dipscope.data.checking.check import Report
    from dipscope.data.checking.matches import Found
    from dipscope.data.reading.sources import Table
    from dipscope.data.traces import Trace

KINDS = "exact,near,13-gram,8-gram"


def check(
    source: Annotated[
        str,
        typer.Argument(
            help="A file, a folder, a published set, or a dataset on the Hub "
            r"(owner/name\[@revision]\[:file])."
        ),
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Whose tokens are counted, and whose chat template is tried: organism:S, a model's "
            r"folder, or owner/name\[@revision] \[default: words, no template]."
        ),
    ] = None,
    max_length: Annotated[int, typer.Option(min=16, help="Tokens a training row may have.")] = 4096,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Benchmarks (such as 'small/*') or a file of questions that must not be in the "
            "data; may be given several times."
        ),
    ] = None,
    items: Annotated[
        int, typer.Option(min=1, help="Test items of each benchmark that are searched for.")
    ] = 1000,
    kinds: Annotated[
        str, typer.Option(help="The matches that are shown and dropped, separated by commas.")
    ] = KINDS,
    drop: Annotated[
        Path | None, typer.Option(help="Write the traces without a match to this parquet file.")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="Write a data card (README.md and figures) into this folder.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Verify final answers against gold answers.")
    ] = True,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            help="FIELD=COLUMN where the mapping is not the inferred one, such as gold=answer; "
            "may be given several times."
        ),
    ] = None,
    prefilled: arguments.Prefilled = False,
    revision: arguments.Revision = None,
    sha256: arguments.Sha256 = None,
    workers: arguments.Workers = None,
    show: Annotated[int, typer.Option(min=0, help="Matches that are printed.")] = 20,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object last on standard output.")
    ] = False,
) -> None:
    """Check a data set: statistics, verification, the training template, benchmark passages.

    Lengths, closed thinking, answers, languages, duplicates and repetition are counted; final answers are
    verified against gold answers; with --tokenizer every row is rendered as training would do it; with
    --against the rows are searched for benchmark passages: exact, nearly the same, 13 and 8 words in a row.

    Example: dipscope data check traces.parquet --tokenizer organism:S --against 'small/*' --card card
    """
    import json
    from dataclasses import replace

    from dipscope.benchmarks import passages
    from dipscope.data.building import writing
    from dipscope.data.checking import check as checks
    from dipscope.data.checking import decontaminate
    from dipscope.data.reading.sources import open_table
    from dipscope.progress import bar
    from dipscope.scoring.verifiers import Verifiers
    from dipscope.scoring.verify import VERSION

    wanted = _kinds(kinds)
    if drop is not None and not against:
        raise DipscopeError("--drop needs to know what to drop", "--against", "Name benchmarks or a file.")
    sought = passages.load(against or (), items)
    words = arguments.tokenizer(tokenizer) if tokenizer else None
    table = open_table(
        arguments.source(source, columns or (), prefilled=prefilled, revision=revision, sha256=sha256)
    )
    with bar("describing") as report:
        stats = checks.describe(table.stream(), words, report)
    if tokenizer:
        stats = replace(stats, unit=f"tokens of {tokenizer}")
    if not stats.rows:
        raise DipscopeError("the data set has no rows", source, "Check the file.")
    verification = targets = found = None
    if words is not None:
        from dipscope.train import targets as training

        with bar("rendering") as report:
            targets = training.inspect(words, table.stream(), max_length, report)
    if verify and stats.gold:
        with bar("verifying") as report, Verifiers(workers) as pool:
            verification = checks.verification(table.stream(), pool, report)
    if sought:
        with bar("searching") as report:
            found = decontaminate.search(table.stream(), sought, report).only(wanted)
    dropped = 0
    if drop is not None and found is not None:
        with bar("dropping") as report:
            kept = writing.write(drop, _counted(decontaminate.drop(table.stream(), found.matches), report))
        dropped = stats.rows - kept
    provenance: dict[str, Any] = {
        "name": _name(source),
        "source": table.facts,
        "verification": verification.as_dict() if verification else None,
        "verifier": VERSION if verification else None,
        "decontamination": found.as_dict() if found else None,
    }
    if card is not None:
        from dipscope.report import datacard

        datacard.write(card, {_name(source): stats}, provenance)
    if json_:
        outcome = {
            **provenance,
            "stats": stats.as_dict(),
            "targets": targets.as_dict() if targets else None,
            "dropped": dropped if drop else None,
            "drop": str(drop) if drop else None,
            "card": str(card / "README.md") if card else None,
        }
        print(json.dumps(outcome))
        return
    from dipscope.report import datascreen

    screen = datascreen.Screen()
    screen.described(source, table.mapping.describe(), stats)
    screen.verified(stats, verification)
    if targets is not None:
        screen.rendered(targets)
    if found is not None:
        screen.searched(found, _texts(table, found, show))
    if drop is not None:
        screen.line(f"{stats.rows - dropped:,} rows without a match: {drop} ({dropped:,} dropped)")
    if card is not None:
        screen.line(f"Card: {card / 'README.md'}")


def _kinds(text: str) -> set[str]:
    from dipscope.data.checking.matches import KINDS as known

    named = {kind.strip() for kind in text.split(",") if kind.strip()}
    if not named or named - {*known}:
        raise DipscopeError(
            f"'{text}' names no kinds of matches", "--kinds", f"Kinds are {', '.join(known)}."
        )
    return named


def _counted(rows: Iterable[Trace], report: Report) -> Iterator[Trace]:
    for number, trace in enumerate(rows, 1):
        yield trace
        if report:
            report(number, 0, "rows written")


def _name(source: str) -> str:
    """A short name for the card: that of the file, without its endings, or of the repository."""
    last = source.rstrip("/").split(":")[0].rpartition("/")[2].partition("@")[0]
    return last.partition(".")[0] or "data"


def _texts(table: Table, found: Found, show: int) -> list[tuple[Any, str]]:
    """The first matches, each with what stands around it; the rows are read again for it."""
    from dipscope.data.checking.decontaminate import surroundings

    shown = found.strongest()[:show]
    missing = {match.trace for match in shown}
    texts: dict[str, Any] = {}
    for trace in table.stream() if missing else ():
        if trace.id in missing:
            texts[trace.id] = trace
            if len(texts) == len(missing):
                break
    return [(match, surroundings(texts[match.trace], match)) for match in shown]
