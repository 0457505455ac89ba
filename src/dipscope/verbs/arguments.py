"""What several of the data verbs take, a source with its options and a tokenizer, and what stands already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dipscope.errors import DipscopeError

if TYPE_CHECKING:
    from dipscope.data.reading.sources import Source

Prefilled = Annotated[
    bool, typer.Option("--prefilled", help="The writer's prompt had opened the thinking block already.")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]
Sha256 = Annotated[str | None, typer.Option(help="Checksum that the source's file must have.")]
Workers = Annotated[int | None, typer.Option(min=1, help=r"Processes that verify \[default: one a core].")]


def source(
    text: str,
    columns: Sequence[str] = (),
    *,
    prefilled: bool = False,
    revision: str | None = None,
    sha256: str | None = None,
) -> Source:
    """The source that a command line names.

    Args:
        text: as `Source.parse` takes it.
        columns: `FIELD=COLUMN`, or several with commas between them.
        prefilled: see `Source`.
        revision: of the repository, where the text does not give one.
        sha256: of the file.

    Raises:
        DipscopeError: it is no source, a mapping is not of this form, or two revisions are given.
    """
    from dataclasses import replace

    from dipscope.data.reading.sources import Source

    parsed = Source.parse(text)
    if revision is not None and parsed.revision not in (None, revision):
        raise DipscopeError(f"two revisions are given, {parsed.revision} and {revision}", text, "Give one.")
    if revision is not None and parsed.hub is None:
        raise DipscopeError("a revision is for a repository on the Hub", text, "Drop --revision.")
    return replace(
        parsed,
        columns=_mapping(columns),
        prefilled=prefilled,
        revision=revision or parsed.revision,
        sha256=sha256,
    )


def _mapping(columns: Sequence[str]) -> Mapping[str, str]:
    pairs = [pair.partition("=") for given in columns for pair in given.split(",")]
    if any(not (field.strip() and column.strip()) for field, _, column in pairs):
        raise DipscopeError("a column is given as FIELD=COLUMN", "--columns", "For example prompt=question.")
    return {field.strip(): column.strip() for field, _, column in pairs}


def tokenizer(text: str) -> Any:
    """The tokenizer of a model; of one on the Hub, nothing else is fetched.

    Args:
        text: as `bases.parse` takes it.

    Raises:
        DipscopeError: there is no such model, or its tokenizer cannot be had.
    """
    from transformers import AutoTokenizer, logging

    from dipscope import bases

    # It would warn of rows that are longer than the model's context.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    model = bases.parse(text)
    if model.organism is not None:
        from dipscope.organism import tokenizer

        return tokenizer.build()
    try:
        if model.hub is not None:
            return AutoTokenizer.from_pretrained(model.hub, revision=model.revision)
        return AutoTokenizer.from_pretrained(str(bases.from_command_line(text)))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DipscopeError(f"the tokenizer cannot be had ({reason})", text, "Check the name.") from None


def standing(out: Path, beside: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The provenance of the table where it is there already; None where there is none yet.

    Args:
        out: the table.
        beside: its provenance.
        request: what the bytes of the table follow from, as its provenance says it.

    Raises:
        DipscopeError: another table is there.
    """
    import json

    from dipscope.workspace import hash_file

    if not out.exists():
        return None
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    same = isinstance(found, dict) and request.items() <= found.items()
    if not same or found.get("sha256") != hash_file(out):
        raise DipscopeError("another table is there", str(out), "Name another file, or give --force.")
    return dict(found)
