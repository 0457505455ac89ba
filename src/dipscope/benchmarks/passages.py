"""What must not stand in training data: prompts of benchmarks by name, and questions in local files."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path

from dipscope.benchmarks import registry
from dipscope.data.reading import files
from dipscope.data.reading.sources import Source, open_table
from dipscope.errors import DipscopeError
from dipscope.scoring.base import Benchmark

ITEMS = 1000  # of a benchmark that makes as many as are asked for
_COLUMNS = ("problem", "question", "prompt")


def load(names: Iterable[str], items: int = ITEMS) -> dict[str, list[str]]:
    """The passages that names stand for, by benchmark or file.

    Args:
        names: a JSONL, CSV or parquet file (or a folder of them) with the questions in `problem`, `question`
            or `prompt`, or what else `data.columns` takes for one; else a pattern of benchmarks such as
            `small/*`, of which the prompts of the test split are taken.
        items: prompts of a benchmark at most.

    Raises:
        DipscopeError: a name is neither, or a file has no such column.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        path = Path(name).expanduser()
        if path.exists() or path.suffix:
            found[_label(path, found)] = _questions(path)
            continue
        for benchmark in _benchmarks(name):
            found[benchmark.name] = [item.prompt for item in benchmark.items(items, "test")]
    return found


def _label(path: Path, taken: Container[str]) -> str:
    """The end of a path that tells it from the others: most files are named `test` inside a folder."""
    parts = path.parts
    labels = ["/".join(parts[-n:]) for n in range(2, len(parts) + 1)] or [str(path)]
    return next((label for label in labels if label not in taken), str(path))


def _questions(path: Path) -> list[str]:
    mapping = {}
    if path.is_file():
        there = files.columns(path)
        mapping = {"prompt": next(c for c in _COLUMNS if c in there)} if {*_COLUMNS} & {*there} else {}
    table = open_table(Source(path=str(path), columns=mapping), need_response=False)
    return [trace.prompt for trace in table.stream()]


def _benchmarks(pattern: str) -> list[Benchmark]:
    try:
        return registry.resolve([pattern])
    except DipscopeError as error:
        fix = f"{error.fix} A file of questions is named by its path."
        raise DipscopeError(f"{error.what}, and no file either", "--against", fix) from None
